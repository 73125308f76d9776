"""Temporary."""
class RecordView:
    def __init__(self, **kw): pass
def parse_row_rule(x): return None
def matches(*a): return False
