"""Where a webhook may lead: nowhere inside, by no spelling, by no name that changes its mind."""

import socket

import msgspec
import pytest

from appliance.webhooks.send import Sender
from appliance.webhooks.shape import fault_of_url
from connectors.sdk.egress import choose_address, pick_address
from connectors.sdk.retry import Trouble
from tests.ports import free_port
from tests.webhooks.conftest import couriers
from tests.webhooks.receiver import receiving

# research/security 4.6: what leads inside, or nowhere, by whatever name.
INSIDE = """
0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.127.255.254 127.0.0.1 127.1.2.3
169.254.169.254 169.254.0.1 172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.8 192.0.2.1 192.31.196.1
192.52.193.1 192.88.99.1 192.168.0.1 192.175.48.1 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1
239.255.255.255 240.0.0.1 255.255.255.255 :: ::1 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:10.0.0.1
::ffff:169.254.169.254 64:ff9b::7f00:1 64:ff9b:1::1 100::1 2001::1 2001:db8::1 2001:10::1 2001:20::1
2002:7f00:1::1 2002:a9fe:a9fe::1 2620:4f:8000::1 3fff::1 5f00::1 fc00::1 fd12:3456::1 fe80::1 fec0::1
ff02::1 fe80::1%1
""".split()  # fmt: skip
SPELLINGS = """
2130706433 0x7f.1 0177.0.0.1 127.1 127.0.1 0x7f000001 017700000001 localhost
""".split()  # fmt: skip


def test_no_address_that_leads_inside_is_public():
    for address in INSIDE:
        with pytest.raises(Trouble) as caught:
            pick_address("hooks.example.org", 443, [address])
        assert (caught.value.code, caught.value.is_permanent) == ("address-forbidden", True)
        # One among good ones is how rebinding looks.
        with pytest.raises(Trouble):
            pick_address("hooks.example.org", 443, ["93.184.216.34", address])
    for spelling in SPELLINGS:
        with pytest.raises((Trouble, OSError)):
            choose_address(spelling, 443)
    for address in ("93.184.216.34", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"):
        assert pick_address("hooks.example.org", 443, [address]).address == address
    # Allowed by network, also where an IPv4 address is written as IPv6.
    assert pick_address("crm", 443, ["::ffff:10.1.2.3"], ("10.1.0.0/16",)).port == 443
    with pytest.raises(Trouble):
        pick_address("crm", 443, ["10.2.0.1"], ("10.1.0.0/16",))


def test_addresses_are_judged_as_they_are_written():
    for url in (
        "http://example.org/", "https://u:p@example.org/", "https://u@example.org/", "ftp://example.org/",
        "https://example.org:22/", "https://example.org:99999/", "https:///x", "//example.org/", "x",
        "https://exämple.org/", "https://example.org/a b", "https://example.org/#f",
        "https://example.org/" + "a" * 2_000, "http://10.1.2.3/", "https://10.1.2.3:6379/",
        "https://example.org/\r\nX: y", "https://127.0.0.1/", "https://[::1]/", "https://169.254.169.254/",
        "https://[::ffff:10.0.0.1]/",
    ):  # fmt: skip
        assert fault_of_url(url, ()), url
    for url in ("https://example.org/hook?a=b", "https://example.org:8443/", "https://[2606::1]/"):
        assert fault_of_url(url, ()) is None, url
    allowed = ("10.1.0.0/16", "1c.local")
    for url in ("http://10.1.2.3:8080/x", "https://10.1.2.3:6379/", "http://1c.local/"):
        assert fault_of_url(url, allowed) is None, url
    assert fault_of_url("http://10.2.0.1/", allowed) and fault_of_url("http://[::1]/", allowed)


@pytest.mark.anyio
async def test_the_connection_goes_to_the_address_that_was_looked_at(certificate, monkeypatch):
    """Names, SNI and Host stay; proxies of the environment and later answers of DNS do nothing."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/")
    both, alone = certificate
    asked = []

    def look_up(host, port):
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["169.254.169.254", "127.0.0.1"]

    async with receiving(both) as receiver, receiving() as plain:
        options = {"timeout_s": 2.0, "ca_file": str(alone), "look_up": look_up}
        url = f"https://localhost:{receiver.port}/x?y=1"
        sender = Sender(url, ("127.0.0.0/8",), **options)
        assert (await sender.send({}, b"{}")).status == 204
        assert receiver.got[0].headers["host"] == f"localhost:{receiver.port}"
        assert receiver.got[0].headers[":line"] == "POST /x?y=1 HTTP/1.1"
        # It changed its mind: not even the kept connection is used for it.
        again = await sender.send({}, b"{}")
        assert (again.code, again.is_wrong, len(receiver.got)) == ("address-forbidden", True, 1)
        await sender.close()
        # A name that the certificate does not have, and one that is not allowed.
        for host, address, code in (
            ("hooks.example.org", "127.0.0.1", "certificate-untrusted"),
            ("localhost", "10.0.0.1", "address-forbidden"),
        ):
            fixed = {**options, "look_up": lambda h, p, a=address: [a]}
            other = Sender(f"https://{host}:{receiver.port}/", ("127.0.0.0/8",), **fixed)
            sent = await other.send({}, b"{}")
            assert (sent.code, sent.is_wrong) == (code, True), sent
            await other.close()
        # Without TLS, or on odd ports, a public address is spoken to by no name.
        fixed = {**options, "look_up": lambda h, p: ["93.184.216.34"]}
        for bad in (f"http://shop.example:{plain.port}/", "https://shop.example:9/"):
            other = Sender(bad, ("127.0.0.0/8",), **fixed)
            assert (await other.send({}, b"{}")).code == "address-forbidden"
            await other.close()
        unknown = Sender("https://nowhere.invalid/", (), **{**options, "look_up": _nobody})
        assert (await unknown.send({}, b"{}")).code == "name-unresolved"
        await unknown.close()
        nobody = Sender(
            f"https://localhost:{free_port()}/", ("127.0.0.0/8",), **{**options, "look_up": _here}
        )
        assert (await nobody.send({}, b"{}")).code == "connection-failed"
        await nobody.close()
        assert not plain.got


def _here(host, port):
    return ["127.0.0.1"]


def _nobody(host, port):
    raise socket.gaierror(socket.EAI_NONAME, "no such name")


@pytest.mark.anyio
async def test_a_webhook_whose_name_turns_inwards_stops_and_says_so(desk, valkey_url):
    """The name was public when it was entered; by now it leads to the machine itself."""
    async with receiving() as receiver:
        ident = await desk.make(0, url="https://hooks.example.org/in")
        settings = msgspec.structs.replace(desk.node.settings.webhooks, allow="")
        post = msgspec.structs.replace(
            desk.post, settings=settings, look_up=lambda host, port: ["127.0.0.1"]
        )
        async with couriers(post, valkey_url):
            await desk.deal(title="x")
            seen = await desk.until(ident, lambda s: s["state"] == "failing")
        assert seen["reason"].startswith("address-forbidden") and not receiver.got
