"""The audit's chain: whatever is touched behind the node's back is found, wherever it is."""

import asyncio

import psycopg
import pytest

from appliance.audit import audit_calls, seal, verify, verify_audit
from appliance.base.errors import ApplianceError
from appliance.base.ids import uuid7
from appliance.db.wire import Statement
from appliance.write import verify_log
from tests.tenants import create

pytestmark = pytest.mark.anyio
# One change in the smallest unit a column has.
TOUCHED = {
    "id": "overlay(id::text placing CASE right(id::text, 1) WHEN '0' THEN '1' ELSE '0' END from 36)::uuid",
    "at": "at + interval '1 microsecond'",
    "actor": "overlay(actor::text placing CASE left(actor::text, 1) WHEN '0' THEN '1' ELSE '0' END from 1)::uuid",
    "action": "overlay(action placing chr(ascii(action) # 1) from 1)",
    "subject": "overlay(subject placing chr(ascii(subject) # 1) from 1)",
    "request_id": "overlay(request_id::text placing CASE left(request_id::text, 1) WHEN '0' THEN '1' ELSE '0' END from 1)::uuid",
    "outcome": "overlay(outcome placing chr(ascii(outcome) # 1) from 1)",
    "details": "jsonb_set(details, '{count}', '8')",
}  # fmt: skip


async def note(tenant, count=1):
    """Events with every column filled; their actions count up."""
    async with tenant.db.transaction(tenant.id) as tx:
        for n in range(count):
            await tx.run(
                *audit_calls(tenant.id, f"thing.done{n}", actor=uuid7(), subject="subject",
                             request_id=uuid7(), details={"count": 7})
            )  # fmt: skip


async def sealed(tenant, *batches):
    for count in batches or (3,):
        await note(tenant, count)
        while await seal(tenant.db, tenant.id):
            pass


async def faults(tenant):
    return (await verify_audit(tenant.db, tenant.id)).faults


async def test_a_whole_chain_is_whole(tenant):
    await sealed(tenant, 3, 1, 5)
    await note(tenant, 2)
    report = await verify_audit(tenant.db, tenant.id)
    assert (report.faults, report.unsealed, len(report.head)) == ((), 2, 64)
    rows = await tenant.sql("SELECT count(*)::text FROM audit_seal")
    assert report.seals == int(rows[0][0])
    total = await tenant.sql("SELECT count(*)::text FROM audit")
    assert report.events + 2 == int(total[0][0])


def test_every_column_is_touched_here():
    assert TOUCHED.keys() == {
        "id",
        "at",
        "actor",
        "action",
        "subject",
        "request_id",
        "outcome",
        "details",
    }


@pytest.mark.parametrize("column", TOUCHED)
async def test_a_flipped_byte_is_found_in_any_column(tenant, as_owner, column):
    await sealed(tenant)
    assert await faults(tenant) == ()
    await as_owner(
        tenant,
        f"UPDATE audit SET {column} = {TOUCHED[column]} WHERE tenant_id = %s AND action = 'thing.done1'",
        tenant.id,
    )
    assert await faults(tenant) != ()


@pytest.mark.parametrize("column", ["actor", "request_id"])
async def test_nothing_is_not_the_same_as_something(tenant, as_owner, column):
    await sealed(tenant)
    await as_owner(
        tenant,
        f"UPDATE audit SET {column} = NULL WHERE tenant_id = %s AND action = 'thing.done1'",
        tenant.id,
    )
    assert await faults(tenant) != ()


@pytest.mark.parametrize("change", [
    "DELETE FROM audit WHERE tenant_id = %s AND action = 'thing.done1'",
    "DELETE FROM audit_seal WHERE tenant_id = %s AND no = 2",
    "UPDATE audit_seal SET hash = overlay(hash placing '\\x00' from 1) WHERE tenant_id = %s AND no = 2",
    "UPDATE audit_seal SET ids = ids[2:] WHERE tenant_id = %s AND no = 2",
    "UPDATE audit_seal SET no = no + 1 WHERE tenant_id = %s AND no = (SELECT max(no) FROM audit_seal)",
    "DELETE FROM audit WHERE tenant_id = %s AND action = 'thing.waits'",
    "INSERT INTO audit (tenant_id, id, at, action) VALUES (%s, gen_random_uuid(), now(), 'thing.invented')",
])  # fmt: skip
async def test_what_was_removed_put_in_or_reordered_is_found(tenant, as_owner, change):
    await sealed(tenant, 2, 3, 2)
    async with tenant.db.transaction(tenant.id) as tx:
        await tx.run(*audit_calls(tenant.id, "thing.waits"))
    assert await faults(tenant) == ()
    await as_owner(tenant, change, tenant.id)
    assert await faults(tenant) != ()


async def test_a_chain_that_was_cut_short_is_seen_against_a_copied_head(tenant, as_owner):
    await sealed(tenant, 2, 2)
    head = (await verify_audit(tenant.db, tenant.id)).head
    last = "(SELECT max(no) FROM audit_seal WHERE tenant_id = %s)"
    await as_owner(
        tenant, f"DELETE FROM audit WHERE tenant_id = %s AND id IN (SELECT unnest(ids) FROM audit_seal WHERE no = {last})",
        tenant.id, tenant.id,
    )  # fmt: skip
    await as_owner(
        tenant, f"DELETE FROM audit_seal WHERE tenant_id = %s AND no = {last}", tenant.id, tenant.id
    )
    assert (await verify_audit(tenant.db, tenant.id)).head != head


@pytest.mark.parametrize("change", [
    "UPDATE audit SET outcome = 'done' WHERE tenant_id = $1", "DELETE FROM audit WHERE tenant_id = $1",
    "UPDATE audit_seal SET no = no WHERE tenant_id = $1", "DELETE FROM audit_seal WHERE tenant_id = $1",
    "UPDATE change SET seq = seq WHERE tenant_id = $1", "DELETE FROM change WHERE tenant_id = $1",
    "DELETE FROM staff_grant WHERE tenant_id = $1", "DELETE FROM staff_request WHERE tenant_id = $1",
])  # fmt: skip
async def test_the_role_of_the_program_can_only_add(tenant, change):
    await sealed(tenant)
    with pytest.raises((ApplianceError, psycopg.Error)) as caught:
        async with tenant.db.transaction(tenant.id) as tx:
            await tx.run((Statement(change), (tenant.id,)), commit=True)
    cause = caught.value if isinstance(caught.value, psycopg.Error) else caught.value.__cause__
    assert isinstance(cause, psycopg.errors.InsufficientPrivilege)
    assert await faults(tenant) == ()


async def test_sealers_and_writers_at_the_same_moment(tenant):
    async def writes():
        for _ in range(5):
            await note(tenant, 2)

    async def seals():
        for _ in range(5):
            await seal(tenant.db, tenant.id)
            await asyncio.sleep(0)

    await asyncio.gather(writes(), seals(), writes(), seals(), seals())
    while await seal(tenant.db, tenant.id):
        pass
    report = await verify_audit(tenant.db, tenant.id)
    assert (report.faults, report.unsealed) == ((), 0)
    assert report.events >= 20


async def test_one_report_over_the_audit_and_the_log(tenant, as_owner):
    await tenant.add_kind("card", [("title", "text")])
    made = await tenant.apply(create("card", title="x"))
    assert made.committed
    await sealed(tenant)
    report = await verify(tenant.db, tenant.id, verify_log=verify_log)
    assert report.ok and report.entries and report.streams
    await as_owner(
        tenant, "UPDATE change SET hlc = hlc + 1 WHERE tenant_id = %s AND record_id = %s",
        tenant.id, made.outcomes[0].id,
    )  # fmt: skip
    report = await verify(tenant.db, tenant.id, verify_log=verify_log)
    assert not report.ok and report.audit.faults == ()
