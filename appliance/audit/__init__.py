"""Facts that are not changes of records: append-only, sealed into a chain of hashes."""

from appliance.audit.append import audit_calls, audit_if_calls
from appliance.audit.seal import seal
from appliance.audit.verify import AuditReport, Report, verify, verify_audit

__all__ = [
    "AuditReport",
    "Report",
    "audit_calls",
    "audit_if_calls",
    "seal",
    "verify",
    "verify_audit",
]
