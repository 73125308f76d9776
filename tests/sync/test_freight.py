"""Bytes of files on a stick: into the other side's quarantine, as over the line."""

from dataclasses import replace
from hashlib import sha256

import pytest

from appliance.base.clock import now
from appliance.base.ids import uuid7
from appliance.kernel.context import Door
from appliance.sync.carrier import Cargo
from appliance.sync.freight import PIECE_BYTES
from appliance.sync.shelf import Shelf
from quarantine.contract import Policy, ScanJob
from tests.quarantine.planes import pieces, plane
from tests.sync.branch import body_of
from tests.sync.test_carrier import Stick
from tests.tenants import create

pytestmark = pytest.mark.anyio
BODY = body_of(PIECE_BYTES + 300_000)


@pytest.fixture
async def stick(pair, valkey_url, tmp_path):
    """Both content planes, without a scanner; nothing goes over the line."""
    tenant = pair.hub.id
    await pair.sync()
    async with (
        plane(valkey_url, start=("serve",)) as hub,
        plane(valkey_url, start=("serve",)) as site,
    ):
        found = Stick(pair, tmp_path)
        hub.tenant = site.tenant = tenant
        found.benches = (hub, site)
        found.cargo = (
            Cargo(Shelf(pair.hub.db, hub.client, tenant, from_hub=False)),
            Cargo(Shelf(pair.site.db, site.client, tenant, from_hub=True)),
        )
        yield found


async def bring(stick, at, body=BODY, state="released"):
    """A file with its record at one of the two; its own scanner found it clean."""
    tenant, bench = (stick.pair.hub, stick.pair.site)[at], stick.benches[at]
    ident = uuid7()
    given = ScanJob(ident, tenant.id, "plan.txt", Policy(), now())
    await bench.client.put(given, pieces(body))
    say(bench, ident)
    done = await tenant.apply(
        create("sys.file", ident, name="plan.txt", state=state, size=len(body),
               sha256=sha256(body).hexdigest()),
        ctx=await tenant.ctx(door=Door.SYSTEM),
    )  # fmt: skip
    assert done.committed, done
    return ident


def say(bench, ident):
    bench.ledger(
        "UPDATE blob SET verdict = 'clean', judged = strftime('%s', 'now'), todo = 0 WHERE id = ?",
        ident.hex,
    )


async def read(bench, ident):
    async with bench.client.copy(bench.tenant, ident) as (_, parts):
        return b"".join([part async for part in parts])


async def test_files_go_both_ways_and_are_looked_at_where_they_arrive(stick):
    hub, site = stick.benches
    up, down = await bring(stick, 1), await bring(stick, 0, BODY[::-1])
    there, _ = await stick.round()
    assert there.stat().st_size > len(BODY)
    assert await read(hub, up) == BODY
    assert (await hub.client.look(hub.tenant, up)).verdict is None, "its own scanner has to speak"
    # The site knows of the other file now, and says that it lacks it.
    there, back = await stick.round()
    assert await read(site, down) == BODY[::-1] and back.stat().st_size > len(BODY)
    # Whoever has it says so: it is not carried again.
    there, back = await stick.round()
    assert there.stat().st_size < 50_000 and back.stat().st_size < 50_000


async def test_what_does_not_fit_comes_with_the_next_file(stick):
    ident = await bring(stick, 0)
    await stick.round()
    stick.cargo = (replace(stick.cargo[0], most=PIECE_BYTES), stick.cargo[1])
    await stick.round()
    assert await stick.benches[1].is_gone(ident)
    await stick.round()
    assert await read(stick.benches[1], ident) == BODY


async def test_a_hub_gives_no_file_that_its_own_scanner_has_not_let_out(stick):
    ident = await bring(stick, 0)
    stick.benches[0].ledger("UPDATE blob SET verdict = NULL WHERE id = ?", ident.hex)
    for _ in range(2):
        _, back = await stick.round()
        assert back.stat().st_size < 50_000
    assert await stick.benches[1].is_gone(ident)


async def test_without_a_content_plane_the_records_are_taken_and_it_is_said(stick):
    ident = await bring(stick, 1)
    path = await stick.from_site()
    hub, site = stick.cargo
    stick.cargo = (None, site)
    done = await stick.to_hub(path)
    assert "content plane" in done.problems[0]
    stick.cargo = (hub, site)
    assert (await stick.to_hub(path)).problems == ()
    assert await read(stick.benches[0], ident) == BODY
