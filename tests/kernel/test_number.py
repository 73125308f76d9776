"""Numbers for people: what a pattern says, and what it must say on every node."""

from datetime import UTC, datetime

from appliance.kernel.number import format_number, series_pattern


def test_a_pattern_without_a_node_gets_one_before_its_counter():
    pattern = series_pattern("deal", "D-{yyyy}-{n:4}")
    at = datetime(2026, 11, 20, tzinfo=UTC)
    assert format_number(pattern, 7, "N", at, "UTC") == "D-2026-N-0007"
    assert format_number(pattern, 7, "", at, "UTC") == "D-2026-0007"
