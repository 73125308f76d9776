"""What every plan shares: classes of rows, their counts, the limits that hold a run."""

from __future__ import annotations

from uuid import UUID

from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.intake.runs import Options

SORTS = ("new", "changed", "unchanged", "gone", "suspicious", "faulty")
GONE_SHARE_MAX = 20
_COUNT = Statement(
    "SELECT sort, count(*) FROM intake_row WHERE tenant_id = $1 AND run = $2 GROUP BY sort"
)


async def count_rows(db: Database, tenant: UUID, run: UUID) -> dict[str, int]:
    """Rows of a run by class."""
    (rows,) = await db.read(tenant, (_COUNT, (tenant, run)))
    return {(s or b"").decode(): int(n or 0) for s, n in rows}


def most_gone(options: Options, default: int = GONE_SHARE_MAX) -> int:
    """How many of a hundred may be gone before somebody is asked."""
    return default if options.gone_share_max is None else options.gone_share_max


def limits_hit(counts: dict[str, int], options: Options) -> list[str]:
    """The limits a plan runs into, in words; whoever approves must name them."""
    rows = sum(n for s, n in counts.items() if s != "gone")
    known = counts.get("changed", 0) + counts.get("unchanged", 0) + counts.get("suspicious", 0)
    found = []
    for sort, of, most in (
        ("gone", known + counts.get("gone", 0), most_gone(options)),
        ("changed", known, options.changed_share_max),
        ("faulty", rows, options.faulty_share_max),
    ):
        share = counts.get(sort, 0) * 100 // of if of else 0
        if share > most:
            found.append(f"{sort}: {share} % (limit {most} %)")
    if counts.get("suspicious"):
        found.append(
            f"suspicious: {counts['suspicious']} prices beyond factor {options.price_factor_max}"
        )
    return found
