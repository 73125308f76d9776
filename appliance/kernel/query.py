"""Temporary."""
def search_scope_lexeme(tenant, kind): return f"k{tenant.hex}{kind}"
