"""The middleware: identity, bounds, media type, other sites, headers, the shape of every refusal."""

import logging
import re
from io import StringIO

import httpx
import msgspec
import pytest
import structlog
from litestar import get

from appliance.base import logs
from appliance.base.errors import Misconfigured
from appliance.base.roles import EVERYWHERE, Role
from appliance.http.app import create_app
from appliance.http.route import check_declared
from tests.http.conftest import client_of, make_node

pytestmark = pytest.mark.anyio
JSON = {"Content-Type": "application/json"}
HEADERS = {
    "cache-control": "no-store", "x-content-type-options": "nosniff", "referrer-policy": "no-referrer",
    "x-frame-options": "DENY", "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
}  # fmt: skip


def assert_problem(answer, status, code=None):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == status
    assert body["request_id"] == answer.headers["x-request-id"]
    assert body["title"]
    assert body["detail"]
    assert body["type"] == f"urn:nexus:problem:{body['code']}"
    if code:
        assert body["code"] == code, body
    return body


@pytest.mark.parametrize(("method", "path", "status"), [
    ("GET", "/health/live", 200), ("GET", "/nothing/here", 404), ("PUT", "/api/v1/query", 405),
    ("GET", "/api/v1/me", 401), ("POST", "/api/v1/session", 400), ("GET", "/schema/openapi.json", 200),
])  # fmt: skip
async def test_every_answer_has_the_headers(client, method, path, status):
    answer = await client.request(method, path)
    assert answer.status_code == status
    for name, value in HEADERS.items():
        assert answer.headers[name] == value, name
    assert "strict-transport-security" not in answer.headers
    if status >= 400:
        assert_problem(answer, status)


async def test_transport_security_only_under_tls(app):
    async with client_of(app, base="https://node") as client:
        assert "max-age=" in (await client.get("/health/live")).headers["strict-transport-security"]


async def test_method_not_allowed_names_those_that_are(client):
    answer = await client.put("/api/v1/query")
    assert {m.strip() for m in answer.headers["allow"].split(",")} == {
        "GET",
        "HEAD",
        "POST",
        "OPTIONS",
    }


async def test_body_is_counted_in_real_bytes(client):
    async def chunks():
        for _ in range(10):
            yield b" " * 1024 * 1024

    assert_problem(await client.post("/api/v1/session", content=chunks(), headers=JSON), 413)
    said = {**JSON, "Content-Length": str(10 * 1024 * 1024)}
    assert_problem(await client.post("/api/v1/session", content=b"{}", headers=said), 413)


@pytest.mark.parametrize("media", [
    "text/plain", "multipart/form-data; boundary=x", "application/json; charset=utf-16",
    "application/x-www-form-urlencoded", "application/jsonx", "",
])  # fmt: skip
async def test_media_type_is_exact(client, media):
    answer = await client.post("/api/v1/session", content=b"{}", headers={"Content-Type": media})
    assert_problem(answer, 415)


async def test_compressed_body_is_refused(client):
    answer = await client.post(
        "/api/v1/session", content=b"{}", headers={**JSON, "Content-Encoding": "gzip"}
    )
    assert_problem(answer, 415)


@pytest.mark.parametrize(("body", "code"), [
    (b"", "json.missing"), (b"{", "json.malformed"), (b'{"a": NaN}', "json.malformed"),
    (b'{"a": Infinity}', "json.malformed"), (b'{"a": "\xff"}', "json.not_utf8"),
    (b"[" * 60_000, "json.too_deep"), (b'{"a":' * 40 + b"1" + b"}" * 40, "json.too_deep"),
    (b'{"tenant": "a", "tenant": "b"}', "json.repeated_key"), (b'{"a": "\\ud800"}', "json.malformed"),
    (b'{"a": 1e400}', "json.number"), (b"\xef\xbb\xbf{}", "json.malformed"), (b"{'a': 1}", "json.malformed"),
    (b'{"a": 01}', "json.malformed"), (b'{"a": 1} x', "json.malformed"), (b"]" * 60_000, "json.malformed"),
    (b'{"a": {"\\u0061": 1, "a": 2}}', "json.repeated_key"),
])  # fmt: skip
async def test_unreadable_bodies_name_the_place(client, body, code):
    answer = await client.post("/api/v1/session", content=body, headers=JSON)
    assert_problem(answer, 400, code)


async def test_depth_is_measured_and_brackets_in_text_are_not(client):
    nested = b'{"tenant": "%s", "email": "e", "password": "p"}' % (b"[{" * 500)
    assert_problem(await client.post("/api/v1/session", content=nested, headers=JSON), 401)


async def test_unknown_key_is_refused_by_its_place(client):
    answer = await client.post("/api/v1/session", json={"tenant": "a", "email": 5, "password": "p"})
    assert assert_problem(answer, 422)["errors"][0]["pointer"] == "/email"
    answer = await client.post(
        "/api/v1/session", json={"tenant": "a", "email": "e", "password": "p", "x": 1}
    )
    assert_problem(answer, 422)


async def test_nul_in_a_sign_in_names_its_field(client):
    answer = await client.post(
        "/api/v1/session", json={"tenant": "a", "email": "e\0", "password": "p"}
    )
    assert assert_problem(answer, 422)["errors"][0]["pointer"] == "/email"


@pytest.fixture
def log_lines():
    """What is logged, wherever an earlier test of this process has sent the log."""
    lines = StringIO()
    logs.configure(lines)
    yield lines
    structlog.reset_defaults()
    logging.root.handlers.clear()


async def test_a_fault_of_ours_says_nothing_and_logs_its_type(db, valkey_url, firm, log_lines):
    node = make_node(db, valkey_url, sessions=None)
    async with client_of(create_app(node)) as client:
        answer = await client.get("/api/v1/me", headers={"Authorization": "Bearer nxs_x"})
    body = assert_problem(answer, 500, "node.fault")
    assert "NoneType" not in answer.text
    assert "attribute" not in body["detail"]
    assert "AttributeError" in log_lines.getvalue()


async def test_credentials_over_plain_http_only_from_this_machine(app, firm, client):
    async with client_of(app, address="192.0.2.7") as remote:
        answer = await remote.post("/api/v1/session", json=firm.credentials("owner"))
        assert_problem(answer, 403, "request.insecure")
        answer = await remote.get("/api/v1/me", headers={"Authorization": "Bearer nxs_x"})
        assert_problem(answer, 403, "request.insecure")
        assert (await remote.get("/health/live")).status_code == 200
        assert_problem(await remote.get("/metrics"), 404)
    async with client_of(app, address="192.0.2.7", base="https://node") as remote:
        answer = await remote.post("/api/v1/session", json=firm.credentials("owner"))
        assert answer.status_code == 201


@pytest.mark.parametrize(("headers", "status"), [
    ({}, 403),
    ({"Sec-Fetch-Site": "same-origin"}, 403),
    ({"X-Nexus-Client": "web"}, 403),
    ({"Sec-Fetch-Site": "cross-site", "X-Nexus-Client": "web"}, 403),
    ({"Sec-Fetch-Site": "same-site", "X-Nexus-Client": "web"}, 403),
    ({"Origin": "https://evil.example", "X-Nexus-Client": "web"}, 403),
    ({"Origin": "null", "X-Nexus-Client": "web"}, 403),
    ({"Sec-Fetch-Site": "same-origin", "X-Nexus-Client": "web"}, 200),
    ({"Origin": "https://node", "X-Nexus-Client": "web"}, 200),
])  # fmt: skip
async def test_a_cookie_counts_only_from_our_own_pages(app, firm, headers, status):
    async with client_of(app, base="https://node") as client:
        answer = await client.post(
            "/api/v1/session", json={**firm.credentials("owner"), "cookie": True}
        )
        assert answer.json()["token"] is None
        given = answer.headers["set-cookie"]
        assert given.startswith("__Host-sid=nxs_")
        for mark in ("HttpOnly", "Secure", "SameSite=Lax", "Path=/"):
            assert mark in given
        assert (await client.get("/api/v1/me")).status_code == 200
        answer = await client.post("/api/v1/query", json={"from": "deal"}, headers=headers)
        assert answer.status_code == status, answer.text


async def test_the_program_refuses_a_route_that_declares_nothing(node):
    app = create_app(node)

    @get("/open", sync_to_thread=False)
    def undeclared() -> str:
        return "hello"

    app.register(undeclared)
    with pytest.raises(Misconfigured, match="/open"):
        check_declared(app)


async def test_role_decides_what_is_mounted(db, valkey_url):
    from appliance.http.route import Book, build_handlers

    book = Book("x")

    @book.route("GET", "/hub-only", capability="public", placed=frozenset({Role.HUB}))
    async def only_hub(ask):
        """Nothing."""

    assert build_handlers(make_node(db, valkey_url, role=Role.SITE), book.routes) == []
    assert len(build_handlers(make_node(db, valkey_url, role=Role.HUB), book.routes)) == 1
    assert Role.SOLO in EVERYWHERE


async def test_the_log_line_has_templates_and_ids_but_no_values(firm, sign_in, log_lines):
    owner = await sign_in(firm, "owner")
    ident = str(firm.records["north"]["deal"][0])
    answer = await owner.get(f"/api/v1/records/deal/{ident}")
    found = [msgspec.json.decode(x) for x in log_lines.getvalue().splitlines()]
    line = next(x for x in found if x.get("request_id") == answer.headers["x-request-id"])
    assert line["route"] == "/api/v1/records/{kind}/{id}"
    assert line["tenant"] == str(firm.tenant.id)
    assert line["status"] == 200
    assert ident not in log_lines.getvalue()
    assert firm.tokens["owner"] not in log_lines.getvalue()
    assert isinstance(answer, httpx.Response)


async def test_head_of_every_address_has_the_status_of_its_get(client, firm, sign_in):
    owner = await sign_in(firm, "owner")
    description = (await client.get("/schema/openapi.json")).json()
    assert "HEAD" in description["info"]["description"]
    paths = [p for p, methods in description["paths"].items() if "get" in methods]
    ident = str(firm.records["north"]["deal"][0])
    for path in paths:
        filled = path.replace("{kind}", "deal").replace("{field}", "title")
        filled = re.sub(r"{[a-z_]+}", ident, filled)
        if path == "/api/v1/live":
            continue
        got, head = await owner.get(filled), await owner.head(filled)
        assert (head.status_code, head.content) == (got.status_code, b""), path
        assert head.headers.get("content-type") == got.headers.get("content-type"), path
    assert len(paths) > 20


async def test_head_answers_like_get_without_a_body(client, firm, sign_in):
    owner = await sign_in(firm, "owner")
    for path in (
        "/health/live",
        "/api/v1/kinds",
        "/api/v1/me",
        "/api/v1/live?query=deal",
        "/schema/openapi.json",
    ):
        got = await owner.head(path)
        assert (got.status_code, got.content) == (200, b""), path
        assert "x-request-id" in got.headers
    assert (await owner.head("/api/v1/kinds/none")).status_code == 404
    assert (await client.head("/api/v1/me")).status_code == 401
