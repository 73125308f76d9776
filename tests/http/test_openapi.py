"""The description is true: schemathesis finds no server error and no undocumented answer."""

import asyncio
import contextlib
import socket
import threading

import httpx
import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis.checks import CHECKS
from schemathesis.core.failures import FailureGroup

from appliance.db.database import Database
from appliance.http.app import create_app
from appliance.http.openapi import document
from appliance.http.routes import all_routes
from tests.http.conftest import make_node

EXAMPLES = 15
# A stream never ends on its own: tests/http/test_live.py and test_hidden.py speak to it.
LEFT_OUT = {("GET", "/api/v1/live")}
CHECKED = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance",
    "response_schema_conformance", "response_headers_conformance",
)  # fmt: skip


def test_every_refusal_is_documented_as_a_problem():
    described = document(all_routes(), "0")
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            answers = operation["responses"]
            for status, answer in answers.items():
                if int(status) >= 400 and status != "503":
                    assert "application/problem+json" in answer["content"], (method, path, status)
            assert {"400", "404", "429", "503"} <= answers.keys(), (method, path)
            assert operation["summary"], (method, path)
            assert operation["x-capability"]


def test_bodies_refuse_unknown_keys_by_their_description():
    schemas = document(all_routes(), "0")["components"]["schemas"]
    for route in all_routes():
        if route.body is not None:
            for name in ("NewRecord", "Edit", "SignIn", "NewKind", "QueryBody"):
                assert schemas[name]["additionalProperties"] is False, name


class Server(threading.Thread):
    """The application in a loop of its own: the schema's tests are synchronous."""

    def __init__(self, dsns, valkey_url):
        super().__init__(daemon=True)
        self.dsns, self.valkey_url = dsns, valkey_url
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = found.getsockname()[1]
        self.server = None
        self.ready = threading.Event()

    def run(self):
        asyncio.run(self._serve())

    async def _serve(self):
        db = Database(self.dsns.control_dsn, self.dsns.pool_dsn)
        await db.start()
        node = make_node(db, self.valkey_url)
        config = uvicorn.Config(create_app(node), host="127.0.0.1", port=self.port, log_config=None)
        self.server = uvicorn.Server(config)
        task = asyncio.create_task(self.server.serve())
        while not self.server.started:
            await asyncio.sleep(0.02)
        self.ready.set()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await node.redis.aclose()
        await db.stop()


@pytest.fixture
def server(dsns, valkey_url):
    found = Server(dsns, valkey_url)
    found.start()
    assert found.ready.wait(30)
    yield f"http://127.0.0.1:{found.port}"
    found.server.should_exit = True
    found.join(20)


@pytest.fixture
def prepared(firm):
    """The firm's world, made in the loop of the test before the server's begins."""
    return firm


@pytest.mark.anyio
async def test_schemathesis(prepared, server):
    await asyncio.to_thread(_walk, prepared, server)


def _walk(firm, url):
    token = httpx.post(f"{url}/api/v1/session", json=firm.credentials("owner")).json()["token"]
    schema = schemathesis.openapi.from_url(f"{url}/schema/openapi.json")
    failures = []
    checks = [CHECKS.get_one(name) for name in CHECKED]
    for result in schema.get_all_operations():
        operation = result.ok()
        if (operation.method.upper(), operation.path) in LEFT_OUT:
            continue
        failures += _try(operation, token, checks)
    assert not failures, "\n\n".join(failures[:10])


def _try(operation, token, checks):
    failures = []

    @seed(20261120)
    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, derandomize=False, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=operation.as_strategy())
    def run(case):
        case.headers = {**(case.headers or {}), "Authorization": f"Bearer {token}"}
        answer = case.call(timeout=20)
        try:
            case.validate_response(answer, checks=checks)
        except FailureGroup as found:
            failures.append(
                f"{operation.method.upper()} {operation.path}: {answer.status_code} {answer.text[:300]} {found}"
            )
        except AssertionError as found:
            failures.append(
                f"{operation.method.upper()} {operation.path}: {answer.status_code} {found}"
            )

    run()
    return failures
