"""A move tells a site nothing of what is kept from it, also not in what was left undecided."""

from base64 import b64decode

import msgspec
import pytest

from appliance.kernel.arrival import MARKS, OPEN
from appliance.kernel.change import EntryOp, encode_body
from appliance.kernel.hold import make_mask
from appliance.meta import load_schema
from appliance.sync.frames import decode_frame, encode_frame
from appliance.sync.scope import refuses, strip
from appliance.write.log import common_stream
from tests import pair as replicas
from tests.pair import exchange
from tests.tenants import create, update

pytestmark = pytest.mark.anyio
KIND = "parcel"
FIELDS = [
    {"name": "title", "type": "text"},
    {"name": "margin", "type": "text"},
    {"name": "memo", "type": "long_text", "policy": "text3"},
    {"name": "marks", "type": "multi_choice", "options": {"choices": [
        {"key": "canarytag", "labels": {"en": "T"}}, {"key": "other", "labels": {"en": "O"}}]}},
]  # fmt: skip
MASKED = {KIND: ["margin", "memo", "marks"]}


def texts(value):
    """Everything that an entry says, with what is inside its texts."""
    match value:
        case dict():
            for name, inner in value.items():
                yield from (*texts(name), *texts(inner))
        case list() | tuple():
            for inner in value:
                yield from texts(inner)
        case str():
            yield value.encode()
            try:
                yield b64decode(value, validate=True)
            except ValueError:
                pass


async def written(hub, south):
    """One moved while its values are undecided, one after its memo was written over."""
    ids = []
    for _ in range(2):
        done = await hub.write(
            create(KIND, title="t", margin="canary 0", memo="canary 0\n2\n", marks=["canarytag"]),
            unit="south",
        )
        ids.append(done.outcomes[0].id)
    await exchange(south, hub)
    for node, name in ((hub, "hub"), (south, "south")):
        done = await node.write(
            update(
                KIND, ids[0], margin=f"canary {name}", memo=f"canary {name}\n2\n", marks=["other"]
            )
        )
        assert done.committed
    assert (await hub.write(update(KIND, ids[1], memo="canary 0\nmore\n"))).committed
    await exchange(south, hub)
    for ident in ids:
        done = await hub.write(update(KIND, ident, unit=hub.tenant.units["north"], title="moved"))
        assert done.committed, done
    return ids


async def test_no_byte_of_what_is_masked_goes_with_a_move(site_dsns, tenant, hub):
    await tenant.add_kind(KIND, FIELDS)
    async with replicas.opened(site_dsns[1], 3, tenant, ["north", "south"]) as south:
        await exchange(south, hub)
        ids = await written(hub, south)
    mask = make_mask(MASKED, (await load_schema(hub.db, tenant.id)).kinds)
    stream = tenant.units["north"]
    down = await hub.log(stream)
    sent = [strip(mask, e) for _, e in down]
    moves = {e.entry.record_id: e.entry.body.ext for _, e in down if e.entry.op is EntryOp.ARRIVE}
    # There was something to leak.
    assert (
        b"canary" in b64decode(moves[ids[0]][OPEN])
        and b"canary" in repr(moves[ids[1]][MARKS]).encode()
    )
    for one in decode_frame(encode_frame(stream, sent), b"k" * 32).entries:
        body = msgspec.msgpack.decode(encode_body(one.entry.body))
        assert not any(b"canary" in text for text in texts(body)), one.entry.op
        assert {*one.entry.body.ext.get("stripped", ())} <= {"margin", "memo", "marks"}
    async with replicas.opened(site_dsns[0], 2, tenant, ["north"]) as north:
        for name in ("schema", "shared"):
            common = common_stream(tenant.id, name)
            await north.take(common, [e for _, e in await hub.log(common)], peer=1)
        await north.take(stream, sent, peer=1, cursor=down[-1][0])
        for ident in ids:
            ((data, is_open),) = await north.tenant_rows(
                "SELECT data::text, encode(open, 'escape') FROM record WHERE tenant_id = $1 AND id = $2",
                ident,
            )
            assert "moved" in data and "canary" not in data + (is_open or "")
        # It goes on with what it sees.
        assert (await north.write(update(KIND, ids[0], title="here"))).committed


async def test_a_mask_that_a_move_says_nothing_of_leaves_it_whole(tenant, hub):
    await tenant.add_kind(KIND, FIELDS)
    done = await hub.write(create(KIND, title="t"), unit="south")
    ident = done.outcomes[0].id
    await hub.write(update(KIND, ident, unit=tenant.units["north"]))
    mask = make_mask(MASKED, (await load_schema(hub.db, tenant.id)).kinds)
    (arrived,) = [
        e for _, e in await hub.log(tenant.units["north"]) if e.entry.op is EntryOp.ARRIVE
    ]
    assert strip(mask, arrived) is arrived
    assert refuses(mask, arrived)
