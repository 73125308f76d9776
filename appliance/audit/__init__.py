"""Facts that are not changes of records: append-only, sealed into a chain of hashes."""

from appliance.audit.append import audit_calls
from appliance.audit.seal import seal
from appliance.audit.verify import AuditReport, verify_audit

__all__ = ["AuditReport", "audit_calls", "seal", "verify_audit"]
