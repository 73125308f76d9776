"""Schema as data: the system kinds, and the compiler from their records to a Schema."""

from appliance.meta.load import build_field, compile_schema, load_schema, schema_calls
from appliance.meta.system import RIGHTS_KINDS, SCHEMA_KINDS, SYSTEM_KINDS

__all__ = [
    "RIGHTS_KINDS",
    "SCHEMA_KINDS",
    "SYSTEM_KINDS",
    "build_field",
    "compile_schema",
    "load_schema",
    "schema_calls",
]
