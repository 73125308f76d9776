"""A request counts once, for what it says, from whom it says; an answer for its question alone."""

import asyncio
import io

import pytest

from appliance.base import logs
from appliance.base.errors import TooLarge, Unauthenticated
from appliance.sync import signing
from appliance.sync.keys import NodeKey
from appliance.sync.nodes import open_session, revoke, run_control
from tests.sync.sites import NOBODY, reasons, scope_of, site

pytestmark = pytest.mark.anyio
TARGET = "/api/v1/sync/exchange?part=1"
BODY = b"what is said"


@pytest.fixture
def log():
    sink = io.StringIO()
    logs.configure(sink)
    yield sink
    logs.configure()


@pytest.fixture
async def one(db, tenant):
    return await site(db, tenant.id)


@pytest.fixture
async def talk(db, one):
    return one.conversation(await open_session(db, one.id))


def asked(talk, body=BODY, method="POST", target=TARGET):
    return talk.headers(method, target, body)


async def taken(db, headers, body=BODY, *, method="POST", target=TARGET, **more):
    return await signing.verify(db, scope_of(headers, method=method, target=target), body, **more)


async def refused(db, log, reason, headers, body=BODY, **more):
    with pytest.raises(Unauthenticated) as caught:
        await taken(db, headers, body, **more)
    assert (caught.value.code, caught.value.detail) == (
        signing.refusal().code,
        signing.refusal().detail,
    )
    assert reasons(log.getvalue())[-1] == reason


async def test_a_signed_request_says_who_and_for_which_tenant(db, one, talk, tenant):
    peer = await taken(db, asked(talk))
    assert (peer.id, peer.tenant, peer.origin) == (one.id, tenant.id, one.origin)
    assert len(peer.session) == 16 and peer.scope_state == "active"
    assert peer.origins == {one.origin}


async def test_a_request_counts_once_and_never_after_a_later_one(db, talk, log):
    first, second = asked(talk), asked(talk)
    await taken(db, second)
    await refused(db, log, "replayed", second)
    await refused(db, log, "replayed", first)


async def test_of_one_request_sent_many_times_at_once_one_counts(db, talk):
    headers = asked(talk)
    answers = await asyncio.gather(*(taken(db, headers) for _ in range(8)), return_exceptions=True)
    assert sum(not isinstance(a, Exception) for a in answers) == 1
    assert all(isinstance(a, Unauthenticated) for a in answers if isinstance(a, Exception))


async def test_nothing_of_it_may_be_altered(db, talk, log, tenant):
    headers = asked(talk)
    await refused(db, log, "digest", headers, b"other")
    await refused(db, log, "signature", headers, target="/api/v1/sync/hello?part=1")
    await refused(db, log, "signature", headers, target="/api/v1/sync/exchange?part=2")
    await refused(db, log, "signature", headers, method="PUT")
    other_body = b"other"
    swapped = {**headers, "content-digest": signing.digest_of(other_body)}
    await refused(db, log, "signature", swapped, other_body)
    others = {"nexus-counter": "99", "nexus-session": "00" * 16, "nexus-tenant": str(NOBODY)}
    for name, value in others.items():
        await refused(db, log, "signature", {**headers, name: value})
    assert (await taken(db, headers)).tenant == tenant.id, "what was refused counted nothing"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("signature", ""), ("signature", "sig1=:AAAA:"), ("signature", "sig1=:?:"),
        ("signature-input", 'sig1=("@method");alg="ed25519"'), ("nexus-node", "x"),
        ("nexus-counter", "-1"), ("nexus-counter", "01"), ("nexus-counter", "9" * 30),
        ("nexus-counter", "\u00b2"), ("nexus-session", "ff"), ("nexus-tenant", ""),
        ("content-digest", "\u00e4"), ("nexus-node", "00000000-0000-0000-0000-000000000007 "),
    ],
)  # fmt: skip
async def test_headers_have_one_form(db, talk, log, name, value):
    with pytest.raises(Unauthenticated):
        await taken(db, {**asked(talk), name: value})


async def test_a_header_that_stands_twice_proves_nothing(db, talk, log):
    headers = asked(talk)
    scope = scope_of(headers, target=TARGET)
    scope["headers"].append((b"nexus-tenant", str(NOBODY).encode()))
    with pytest.raises(Unauthenticated):
        await signing.verify(db, scope, BODY)
    assert reasons(log.getvalue()) == ["unreadable"]


async def test_another_nodes_key_session_or_tenant_does_not_do(db, talk, one, tenant, log):
    other = await site(db, tenant.id)
    stranger = signing.Conversation(other.key, one.id, tenant.id, await open_session(db, one.id))
    await refused(db, log, "signature", asked(stranger))
    borrowed = other.conversation(await open_session(db, one.id))
    await refused(db, log, "replayed", asked(borrowed))
    nobody = signing.Conversation(one.key, NOBODY, tenant.id, b"x" * 16)
    await refused(db, log, "unknown", asked(nobody))
    elsewhere = one.conversation(await open_session(db, one.id), tenant=NOBODY)
    await refused(db, log, "tenant", asked(elsewhere))


async def test_an_opening_proves_who_asks_and_no_more(db, one, log):
    opening = one.conversation()
    headers = asked(opening)
    await refused(db, log, "no_session", headers)
    assert (await taken(db, headers, opening=True)).session == b""
    assert asked(opening)["nexus-session"] != headers["nexus-session"]


async def test_sessions_end_and_the_unused_do_not_pile_up(db, one, talk, log):
    await run_control(db, "UPDATE node_session SET expires_at = now() WHERE node_id = %s", one.id)
    await refused(db, log, "replayed", asked(talk))
    used = one.conversation(await open_session(db, one.id))
    await taken(db, asked(used))
    for _ in range(50):
        await open_session(db, one.id)
    (held,) = (
        await run_control(db, "SELECT count(*) FROM node_session WHERE node_id = %s", one.id)
    )[0]
    assert held <= 34
    await taken(db, asked(used))


async def test_a_revoked_node_is_out_at_once_but_may_say_farewell(db, one, talk, log, tenant):
    await taken(db, asked(talk))
    await revoke(db, one.id, "the laptop was stolen", tenant=tenant.id)
    await refused(db, log, "revoked", asked(talk))
    await refused(db, log, "revoked", asked(one.conversation()), opening=True)
    peer = await taken(db, asked(one.conversation()), opening=True, leaving=True)
    assert (peer.state, peer.scope_state) == ("revoked", "withdrawn")


async def test_a_body_over_its_bound_is_not_even_hashed(db, talk):
    headers = asked(talk)
    with pytest.raises(TooLarge):
        await taken(db, headers, body_bytes_max=3)


async def test_no_clock_is_looked_at(db, one, talk, monkeypatch):
    import time

    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert (await taken(db, asked(talk))).id == one.id


def test_an_answer_fits_its_question_alone(log):
    hub, other = NodeKey(b"h" * 32), NodeKey(b"o" * 32)
    question, answer = "sig1=:question:", b"answer"
    headers = signing.sign_answer(hub, 200, answer, question)
    signing.verify_answer(hub.public, 200, headers, answer, question)
    for wrong in (
        (other.public, 200, headers, answer, question),
        (hub.public, 201, headers, answer, question),
        (hub.public, 200, headers, b"forged", question),
        (hub.public, 200, headers, answer, "sig1=:another:"),
        (hub.public, 200, {}, answer, question),
        (hub.public, 200, {**headers, "content-digest": "\u00e4"}, answer, question),
    ):
        with pytest.raises(Unauthenticated) as caught:
            signing.verify_answer(*wrong)
        assert caught.value.code == "sync.answer_untrusted"
