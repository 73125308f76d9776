"""Files behind HTTPS and in mailboxes, from servers that misbehave; and when to try again."""

import asyncio
import gzip
import ssl
from datetime import UTC, datetime
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.sdk.retry import (
    Breaker,
    Policy,
    Trouble,
    as_trouble,
    read_retry_after,
    retry,
    wait_before,
)
from connectors.sdk.egress import choose_address
from connectors.transports.fetch import fetch
from connectors.transports.mailbox import Mailbox, MailPlace
from connectors.transports.pull import Pull, PullPlace
from tests.connectors import servers

BODY = bytes(range(256)) * 4_000


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return servers.make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def pulled(certificate, tmp_path):
    """Fetch `/list.csv` of a server that answers by a function; returns bytes, remembers marks."""
    both, alone = certificate
    known = {}

    def pull(answer, *, take=True, path="/list.csv", **more):
        with servers.run_https(both, answer) as address:
            place = {"allowed": ("127.0.0.1/32", "::1/128"), "ca_file": str(alone), **more}
            transport = Pull(PullPlace(url=address + path, **place), known)
            try:
                listing = transport.entries()
                if not listing.entries:
                    return None
                got = fetch(transport, listing.entries[0], tmp_path).path.read_bytes()
                if take:
                    transport.finish(listing.entries[0], is_failed=False)
                return got
            finally:
                transport.close()

    pull.known = known
    return pull


def test_a_file_is_fetched_once_until_it_changes(pulled):
    asked = []

    def answer(to):
        asked.append(to.headers.get("If-None-Match"))
        if asked[-1] == '"v1"':
            to.say(304)
        else:
            to.say(200, BODY, ETag='"v1"')

    assert pulled(answer, take=False) == BODY
    # Nobody has taken it: whoever fetched it may have died.
    assert pulled(answer) == BODY
    assert pulled(answer) is None
    assert asked[-1] == '"v1"' and pulled.known["etag"] == '"v1"'


def test_a_cut_body_is_gone_on_with_where_it_was(pulled):
    asked = []

    def answer(to):
        wanted = to.headers.get("Range")
        asked.append((wanted, to.headers.get("If-Range")))
        if wanted:
            at = int(wanted[6:-1])
            told = f"bytes {at}-{len(BODY) - 1}/{len(BODY)}"
            to.say(206, BODY[at:], ETag='"v1"', Content_Range=told)
        else:
            to.say(200, BODY[:500_000], ETag='"v1"', Content_Length=str(len(BODY)))
            to.close_connection = True

    assert pulled(answer) == BODY
    assert any(a[0] and a[1] == '"v1"' for a in asked)


@pytest.mark.parametrize(
    ("answer", "code", "is_permanent"),
    [
        (lambda to: (to.say(200, BODY[:999], Content_Length="5000"), setattr(to, "close_connection", True)), "truncated", False),
        (lambda to: to.say(200, gzip.compress(BODY)[:-20], Content_Encoding="gzip"), "truncated", False),
        (lambda to: to.say(200, b"no gzip at all", Content_Encoding="gzip"), "damaged", False),
        (lambda to: to.say(200, gzip.compress(bytes(40 << 20)), Content_Encoding="gzip"), "file-too-large", True),
        (lambda to: to.say(200, b"x", Content_Encoding="gzip, gzip"), "encoding-unknown", True),
        (lambda to: to.say(302, Location="https://127.0.0.2/secret"), "address-forbidden", True),
        (lambda to: to.say(302, Location="https://169.254.169.254/latest/meta-data"), "address-forbidden", True),
        (lambda to: to.say(302, Location="https://[::ffff:10.0.0.1]/"), "address-forbidden", True),
        (lambda to: to.say(302, Location="http://localhost/list.csv"), "address-forbidden", True),
        (lambda to: to.say(302, Location="file:///etc/passwd"), "address-forbidden", True),
        (lambda to: to.say(302, Location="/list.csv"), "redirect-loop", True),
        (lambda to: to.say(429, Retry_After="17"), "http-429", False),
        (lambda to: to.say(420), "http-420", False),
        (lambda to: to.say(503), "http-503", False),
        (lambda to: to.say(404), "http-404", True),
        (lambda to: to.say(401), "http-401", True),
        (lambda to: to.wfile.write(b"garbage\r\n\r\n"), "connection-failed", False),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_and_nothing_is_kept(pulled, tmp_path, answer, code, is_permanent):
    with pytest.raises(Trouble) as caught:
        pulled(answer, unpacked_max=8 << 20)
    assert (caught.value.code, caught.value.is_permanent) == (code, is_permanent)
    assert caught.value.after_s == (17 if code == "http-429" else 0)
    assert list(tmp_path.iterdir()) == [] and not pulled.known.get("etag")


def test_packed_bodies_are_unpacked_and_redirects_followed_without_our_secret(pulled, tmp_path):
    (tmp_path / "headers").mkdir()
    secret = tmp_path / "headers" / "h"
    secret.write_text("Authorization: Bearer s\n")
    asked = []

    def answer(to):
        asked.append((to.path, to.headers.get("Authorization"), to.headers.get("Host")))
        if to.path == "/list.csv":
            there = f"https://127.0.0.1:{to.server.server_address[1]}/other"
            to.say(302, Location=there)
        else:
            to.say(200, gzip.compress(BODY), Content_Encoding="gzip")

    assert pulled(answer, headers_file=str(secret)) == BODY
    assert {a[1] for a in asked if a[0] == "/list.csv"} == {"Bearer s"}
    assert {a[1] for a in asked if a[0] == "/other"} == {None}


def test_addresses_of_ones_own_are_not_reached_unless_meant():
    for host in ("127.0.0.1", "10.1.2.3", "::1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1"):  # fmt: skip
        with pytest.raises(Trouble, match="address-forbidden"):
            choose_address(host, 443)
    assert choose_address("10.1.2.3", 443, ("10.1.0.0/16",)).address == "10.1.2.3"
    assert choose_address("localhost", 443, ("localhost",)).host == "localhost"
    assert choose_address("8.8.8.8", 443).address == "8.8.8.8"


def test_a_certificate_of_nobody_is_refused_for_good(certificate):
    with servers.run_https(certificate[0], lambda to: to.say(200)) as address:
        with pytest.raises(Trouble) as caught:
            Pull(PullPlace(url=address + "/x", allowed=("localhost",)), {}).entries()
    assert (caught.value.code, caught.value.is_permanent) == ("certificate-untrusted", True)


def letter(sender, *attachments, dkim="pass"):
    message = EmailMessage()
    message["From"] = sender
    message["Subject"] = "Выписка"
    message["Authentication-Results"] = f"mx; dkim={dkim} header.d=bank.example"
    message.set_content("see attached")
    for name, content in attachments:
        message.add_attachment(
            content, maintype="application", subtype="octet-stream", filename=name
        )
    return message.as_bytes()


def test_attachments_of_allowed_senders_come_once(certificate, tmp_path):
    both, alone = certificate
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "in").mkdir()
    messages = {
        3: letter("Bank <Robot@bank.example>", ("выписка.txt", b"one"), ("../../etc/x", b"two")),
        4: letter("Somebody <a@evil.example>", ("virus.exe", b"no")),
        9: letter("robot@bank.example"),
    }
    known = {}

    def look(validity="7", password="secret"):
        (tmp_path / "secret").write_text(password)
        with servers.run_imap(both, messages, validity) as port:
            transport = Mailbox(
                MailPlace(
                    host="localhost", port=port, user="u", senders=("@bank.example",),
                    password_file=str(tmp_path / "secret"), ca_file=str(alone),
                ),
                known,
            )  # fmt: skip
            got = []
            for entry in transport.entries().entries:
                got.append((entry, fetch(transport, entry, tmp_path / "in").path.read_bytes()))
                if entry.facts["from"] != "late@bank.example":
                    transport.finish(entry, is_failed=False)
            transport.close()
            return got

    first = look()
    assert [(e.name, c) for e, c in first] == [("3-0-выписка.txt", b"one"), ("3-1-x", b"two")]
    assert first[0][0].facts == {"from": "Robot@bank.example", "dkim": "pass"}
    assert look() == [] and known["uid"] == "9"
    messages[12] = letter("late@bank.example", ("a.txt", b"3"), dkim="fail")
    # What is not taken is offered again.
    assert [c for _, c in look()] == [b"3"] and [e.facts["dkim"] for e, _ in look()] == ["fail"]
    # Numbers given anew: everything is offered again, the node knows it by its hash.
    assert len(look("8")) == 3
    with pytest.raises(Trouble, match="sign-in-refused"):
        look(password="wrong")


@given(st.integers(0, 50), st.floats(0, 500))
def test_waits_stay_within_their_bounds(tried, asked):
    policy = Policy(first_s=1, most_s=60)
    wait = wait_before(policy, tried, asked)
    assert asked <= wait <= max(asked, min(60, 2.0**tried))


def run_retry(outcomes, policy=Policy(tries=4, first_s=1, deadline_s=100)):
    clock, waits, left = [0.0], [], list(outcomes)

    async def work():
        outcome = left.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def sleep(seconds):
        waits.append(seconds)
        clock[0] += seconds

    try:
        return asyncio.run(retry(work, policy, sleep=sleep, now=lambda: clock[0])), waits
    except Trouble as trouble:
        return trouble.code, waits


def test_transient_trouble_is_tried_again_and_permanent_is_not():
    cut = ConnectionResetError(104, "reset")
    assert run_retry([cut, TimeoutError(), "done"])[0] == "done"
    assert run_retry([Trouble("bad", "x", is_permanent=True), "done"]) == ("bad", [])
    assert run_retry([cut] * 9)[0] == "connection-failed"
    asked = run_retry([Trouble("http-429", "x", after_s=30), "done"])
    assert asked[0] == "done" and asked[1][0] >= 30
    # What the other side asks for does not reach beyond the deadline.
    assert run_retry([Trouble("http-429", "x", after_s=3_600), "done"]) == ("http-429", [])


def test_work_that_hangs_ends_at_the_deadline():
    async def work():
        await asyncio.sleep(60)

    with pytest.raises(Trouble, match="timeout"):
        asyncio.run(retry(work, Policy(deadline_s=0.1)))


def test_errors_have_names_and_waits_are_read():
    assert as_trouble(OSError(28, "No space left on device")).code == "disk-full"
    assert as_trouble(ssl.SSLCertVerificationError(1, "x")).is_permanent
    now = datetime(2026, 11, 20, 10, tzinfo=UTC)
    assert read_retry_after("Fri, 20 Nov 2026 10:00:30 GMT", now) == 30
    assert [read_retry_after(t) for t in ("120", "-5", "soon", "٣", "")] == [120, 0, 0, 0, 0]


def test_a_source_that_keeps_failing_rests():
    breaker, cut = Breaker(3, 100), Trouble("timeout", "")
    for _ in range(2):
        breaker.note(0, cut)
    assert breaker.allows(0)
    breaker.note(0, cut)
    assert not breaker.allows(99) and breaker.allows(100)
    breaker.note(100, cut)
    assert not breaker.allows(299)
    breaker.note(300, None)
    assert breaker.allows(300)
    breaker.note(300, Trouble("host-key-changed", "", is_permanent=True))
    assert not breaker.allows(399)
