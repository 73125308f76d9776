"""A branch signs its own people in with the hub gone, and nobody else; the hub's word reaches it."""

import msgspec
import pyotp
import pytest

from appliance.access import secrets, sessions, totp
from appliance.access.login import Attempt, sign_in
from appliance.access.offboard import close_doors
from appliance.base.errors import Forbidden, Malformed, Unauthenticated, Unavailable
from appliance.base.ids import uuid7
from appliance.base.settings import Login
from appliance.db.wire import Statement
from appliance.sync.people import (
    Slice,
    read_changes,
    read_people,
    settle_changes,
    take_changes,
    take_people,
)
from appliance.sync.withdrawal import change_scope, take_told, told_for
from tests.access import conftest as access
from tests.access.world import PASSWORD, POLICY
from tests.access.world import sessions as known
from tests.sync.nodes import add_site, opened_site

pytestmark = pytest.mark.anyio
world = access.world
FRESH = "nine quiet harbours before noon"


class Branch:
    """A site of `north`, and what goes between it and the hub."""

    def __init__(self, world, db, node):
        self.world, self.db, self.node, self.rev = world, db, node, 0

    async def pull(self):
        await take_told(
            self.db, self.world.id, await told_for(self.world.db, self.node, self.world.id), 2
        )
        data = await read_people(self.world.db, self.world.id, self.node, self.rev)
        if data is None:
            return ()
        self.rev = msgspec.msgpack.decode(data, type=Slice).rev
        return await take_people(self.db, self.world.id, data)

    async def push(self):
        data = await read_changes(self.db, self.world.id)
        if data is None:
            return None
        answer = await take_changes(self.world.db, self.world.id, self.node, data)
        await settle_changes(self.db, self.world.id, answer)
        self.rev = 0
        return answer

    async def sign_in(self, who, password=PASSWORD, policy=POLICY, **more):
        attempt = Attempt(self.world.slug, f"{who}@example.org", password, **more)
        return await sign_in(self.db, attempt, policy, uuid7())

    async def ctx(self, who, password=PASSWORD, **more):
        signed = await self.sign_in(who, password, **more)
        return await known(self.db).authenticate(signed.token, uuid7()), signed.token

    async def lives(self, token):
        try:
            await known(self.db).authenticate(token, uuid7())
        except Unauthenticated:
            return False
        return True

    async def sql(self, text, *params):
        async with self.db.transaction(self.world.id) as tx:
            (rows,) = await tx.run((Statement(text), params))
        return [[v.decode() if v is not None else None for v in row] for row in rows]


@pytest.fixture
async def branch(world, dsns):
    for who, profile, unit in (
        ("anna", "viewer", "north"), ("boris", "viewer", "south"), ("clara", "viewer", "head"),
    ):  # fmt: skip
        await world.person(who, profile, unit)
    await world.person("dora", "viewer", "north", valid_to="2020-01-01")
    node, _ = await add_site(dsns, world.id, [world.tenant.units["north"]])
    async with opened_site(dsns, world.id, world.slug) as db:
        made = Branch(world, db, node)
        await made.pull()
        yield made


async def test_exactly_those_who_belong_there(world, branch):
    names = [
        r[0].partition("@")[0] for r in await branch.sql("SELECT email FROM credential ORDER BY 1")
    ]
    assert names == ["anna", "clara", "owner"]
    for who in names:
        assert (await branch.sign_in(who)).stale_days == 0
    for who in ("boris", "dora"):
        with pytest.raises(Unauthenticated):
            await branch.sign_in(who)
    assert await read_people(world.db, world.id, branch.node, branch.rev) is None, "nothing is new"
    assert await read_people(world.db, world.id, uuid7(), 0) is None, "a stranger"
    with pytest.raises(Malformed):
        await take_people(branch.db, world.id, b"\xc1")


async def test_the_hubs_word_ends_sessions_at_the_site(world, branch):
    ctx, _ = await world.enter("owner")
    _, anna = await branch.ctx("anna")
    _, clara = await branch.ctx("clara")
    await sessions.end_person(world.db, ctx, world.tenant.people["anna"], "revoked")
    assert await branch.lives(anna), "offline it cannot know"
    await branch.pull()
    assert not await branch.lives(anna) and await branch.lives(clara)
    _, anna = await branch.ctx("anna")
    await close_doors(world.db, ctx, world.tenant.people["anna"])
    mine, _ = await world.enter("clara")
    await secrets.change_password(world.db, mine, PASSWORD, FRESH, POLICY)
    await branch.pull()
    assert not await branch.lives(anna) and not await branch.lives(clara)
    with pytest.raises(Unauthenticated):
        await branch.sign_in("anna")
    with pytest.raises(Unauthenticated):
        await branch.sign_in("clara")
    assert await branch.sign_in("clara", FRESH)


async def test_a_password_set_at_the_site_counts_at_the_hub(world, branch):
    await world.sql(
        "UPDATE credential SET must_change = true WHERE tenant_id = $1 AND email LIKE 'anna%'",
        world.id,
    )
    await branch.pull()
    with pytest.raises(Forbidden):
        await branch.ctx("anna")
    signed = await branch.sign_in("anna")
    anna = await known(branch.db).enter(signed.token, uuid7(), with_first_password=True)
    await secrets.change_password(branch.db, anna[0], PASSWORD, FRESH, POLICY)
    assert await branch.pull() == (), "ours waits to go up"
    assert await branch.sign_in("anna", FRESH)
    answer = await branch.push()
    assert answer.taken == (world.tenant.people["anna"],) and answer.refused == ()
    assert (await world.sign_in("anna", FRESH)).must_change_password is False
    _, token = await branch.ctx("anna", FRESH)
    await branch.pull()
    assert await branch.lives(token), "what came back is what we sent"
    assert await branch.push() is None
    (event,) = await world.audited("person.sign_in_taken")
    assert event[1] == str(world.tenant.people["anna"])


async def test_of_two_passwords_the_hubs_stands(world, branch):
    at_site, token = await branch.ctx("anna")
    await secrets.change_password(branch.db, at_site, PASSWORD, FRESH, POLICY)
    at_hub, _ = await world.enter("anna")
    await secrets.change_password(world.db, at_hub, PASSWORD, f"{FRESH} sharp", POLICY)
    assert (await branch.push()).refused == (world.tenant.people["anna"],)
    await branch.pull()
    assert not await branch.lives(token)
    assert await branch.sign_in("anna", f"{FRESH} sharp")
    assert await branch.sql(
        "SELECT count(*) FROM audit WHERE action = 'person.sign_in_overruled'"
    ) == [["1"]]


async def test_a_site_sets_no_password_of_people_who_reach_further(world, branch):
    for who in ("clara", "owner"):
        at_site, _ = await branch.ctx(who)
        await secrets.change_password(branch.db, at_site, PASSWORD, FRESH, POLICY)
        assert (await branch.push()).refused == (world.tenant.people[who],)
        with pytest.raises(Unauthenticated):
            await world.sign_in(who, FRESH)
        await branch.pull()
        assert await branch.sign_in(who)


async def test_a_code_is_good_once_on_all_nodes_and_a_door_shut_is_shut(world, branch):
    at_hub, _ = await world.enter("clara")
    begun = await secrets.begin_totp(world.db, at_hub, world.slug)
    code = pyotp.TOTP(begun.secret)
    import time

    first = code.at(time.time() - 30)
    recovery = await secrets.confirm_totp(world.db, at_hub, (PASSWORD, begun.secret, first), POLICY)
    await branch.pull()
    assert await branch.sign_in("clara", totp=recovery[0])
    answer = await branch.push()
    assert answer.taken == (world.tenant.people["clara"],), (
        "what only takes away counts of everybody"
    )
    with pytest.raises(Unauthenticated):
        await world.sign_in("clara", totp=recovery[0])
    assert await world.sign_in("clara", totp=recovery[1])
    used = totp.recovery_hash(recovery[1])
    await branch.pull()
    ((left,),) = await branch.sql(
        "SELECT array_to_string(recovery_hashes, ',') FROM credential WHERE email LIKE 'clara%'"
    )
    assert used.hex() not in left
    await branch.sql("UPDATE credential SET state = 'locked' WHERE email LIKE 'anna%'")
    await branch.sql("UPDATE credential SET state = 'locked' WHERE email LIKE 'owner%'")
    answer = await branch.push()
    assert answer.taken == (world.tenant.people["anna"],)
    assert answer.refused == (world.tenant.people["owner"],), "the last manager stays"
    assert await world.sign_in("owner")
    with pytest.raises(Unauthenticated):
        await world.sign_in("anna")
    await branch.pull()
    await branch.sql("UPDATE credential SET state = 'active' WHERE email LIKE 'anna%'")
    await branch.sql(
        "UPDATE credential SET totp_step = 9000000000, session_epoch = 70 WHERE email LIKE 'clara%'"
    )
    assert len((await branch.push()).refused) == 1, (
        "neither a step of the future nor ended sessions"
    )
    with pytest.raises(Unauthenticated):
        await world.sign_in("anna")
    assert await world.sign_in("clara", totp=recovery[2])


async def test_who_leaves_is_forgotten(world, branch):
    from tests.tenants import delete

    _, anna = await branch.ctx("anna")
    await world.run(delete("sys.membership", world.members["anna"]))
    await branch.pull()
    assert not await branch.lives(anna)
    assert await branch.sql(
        "SELECT count(*) FROM session WHERE person_id = $1", world.tenant.people["anna"]
    ) == [["0"]]
    await change_scope(
        world.db, branch.node, world.id, units=frozenset({world.tenant.units["south"]})
    )
    await branch.pull()
    names = [
        r[0].partition("@")[0] for r in await branch.sql("SELECT email FROM credential ORDER BY 1")
    ]
    assert names == ["boris", "clara", "owner"]


async def test_a_branch_that_hears_nothing_says_so(world, branch):
    await branch.sql("UPDATE hold SET heard_at = now() - interval '20 days'")
    assert (await branch.sign_in("anna")).stale_days == 20
    with pytest.raises(Unavailable) as caught:
        await branch.sign_in("anna", policy=Login(stale_refuse=True))
    assert caught.value.code == "session.site_stale"
    await branch.pull()
    assert (await branch.sign_in("anna")).stale_days == 0


async def test_a_site_makes_no_sign_in_too_dear_and_no_epoch_too_high(world, branch):
    await branch.pull()
    anna = world.tenant.people["anna"]
    text = "SELECT password_hash, state, session_epoch < 1000 FROM credential WHERE person_id = $1"
    before = [*await world.sql(text, anna)]
    for column, value in (
        ("password_hash", "'$argon2id$v=19$m=4194304,t=2,p=1$c29tZXNhbHQ$aGFzaA'"),
        ("password_hash", "'nothing of the kind'"),
        ("session_epoch", "2147483647"),
    ):
        change = f"UPDATE credential SET {column} = {value} WHERE tenant_id = $1 AND person_id = $2"
        await branch.sql(change, world.id, anna)
        await branch.push()
        await branch.pull()
    assert [*await world.sql(text, anna)] == before
    assert await world.sign_in("anna", PASSWORD)
