"""What a run says of itself: when it came how far, by which mapping, and what it has cost."""

import msgspec
import pytest

from appliance.base.errors import Clash
from appliance.base.errors import Refused as Unknown
from appliance.intake import dead, runs, steps
from appliance.intake.figures import count
from connectors.sdk import parent
from connectors.sdk.contract import Refused
from tests.access.conftest import world  # noqa: F401 - the fixture
from tests.intake.test_intake import LIST, desk, quiet, table  # noqa: F401 - the fixture

pytestmark = pytest.mark.anyio


async def test_a_run_keeps_its_moments_its_budget_and_is_counted_once(desk):  # noqa: F811
    made = await desk.bring(LIST)
    assert made.created_at <= made.begun_at <= made.started_at <= made.read_at <= made.planned_at
    assert made.applied_at is None and made.used.cpu_ms > 0 and 10 < made.used.memory_mb < 512
    assert len(made.mapping_version) == 16
    done = await desk.approve(made)
    assert done.planned_at <= done.approved_at <= done.applied_at
    other = table(["B1", "Саморез 3,5х25", "Метиз", "1,50", "1,20"])
    again = await desk.bring(other, options=runs.Options(gone_share_max=100))
    # The same columns are read by the same mapping, another reading has another version.
    assert again.mapping_version == made.mapping_version
    small = await desk.bring(LIST + b"\n", options=runs.Options(rows_max=2))
    assert (small.state, small.detail) == (
        "failed", "too-many-rows: expected at most 2 rows, found more.",
    )  # fmt: skip
    counted, _ = await count(desk.db, desk.firm.id, "firm", made.created_at)
    ends = {one.end: (one.runs, one.rows) for one in counted.runs}
    assert ends == {"planned": (2, 5), "applied": (1, 3), "failed": (1, 0)}
    assert counted.dead == 1 and all(0 <= one.ms < 120_000 for one in counted.runs)


async def test_a_failed_run_is_read_again_by_what_was_confirmed_since(desk):  # noqa: F811
    made = await desk.bring(LIST)
    columns = tuple(
        msgspec.structs.replace(c, header="Ціна") for c in made.mapping.tables[0].columns
    )
    wrong = msgspec.structs.replace(
        made.mapping, tables=(msgspec.structs.replace(made.mapping.tables[0], columns=columns),)
    )
    failed = await desk.bring(LIST, mapping=wrong)
    assert failed.state == "failed" and "does not fit" in failed.detail
    await desk.approve(made)
    (letter,) = await dead.list_letters(desk.db, desk.ctx)
    assert (letter.id, letter.stage) == (failed.id, "read")
    found = await dead.find_failed(desk.db, desk.ctx, failed.id)
    with pytest.raises(Clash, match="Bring it again"):
        await dead.begin_anew(desk.db, desk.ctx, found, refusal="The file is rejected.")
    assert await dead.begin_anew(desk.db, desk.ctx, found, refusal=None)
    await steps.prepare(desk.db, desk.firm.id, failed.id, desk.folder, 1, quiet)
    again = await desk.look(failed.id)
    assert again.state == "planned" and again.mapping_version == made.mapping_version
    assert again.begun_at > failed.begun_at and await dead.list_letters(desk.db, desk.ctx) == []
    with pytest.raises(Unknown):
        await dead.find_failed(desk.db, desk.ctx, failed.id)


async def test_a_reading_beyond_its_processor_time_is_named(tmp_path):
    path = tmp_path / "list.csv"
    lines = [[f"A{n}", f"Болт М{n} оцинкованный", "Метиз", "12,50", "11"] for n in range(30_000)]
    path.write_bytes(table(*lines))
    with pytest.raises(Refused) as refused:
        async with parent.open_input("price_list", path, cpu_s=1) as reading:
            found = await reading.inspect({})
            for _ in range(50):
                async for _frame in reading.read(found.proposal):
                    pass
    assert refused.value.fault.code == "cpu-budget"
