"""A firm, its API, and a courier that delivers to receivers of the test."""

import asyncio
import contextlib
from dataclasses import dataclass, field

import pytest
import redis.asyncio as aioredis

from appliance.base.settings import Settings, Webhooks
from appliance.http.app import create_app
from appliance.sync.wake import Waker, ringing
from appliance.webhooks.deliver import Pace, Post
from appliance.work.courier import Courier
from connectors.sdk.egress import resolve
from connectors.sdk.retry import Policy
from tests.connectors.servers import make_certificate
from tests.http.conftest import _firm, client, make_node, shared, sign_in, valkey_url  # noqa: F401

LOCAL = "127.0.0.1/32 ::1/128"
# The shape of the real one, in fractions of a second.
QUICK = Pace(
    retry=Policy(first_s=0.05, most_s=0.2), rest_after=3, wrong_max=4, refused_max=6, attempts_max=4
)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    return make_certificate(tmp_path_factory.mktemp("hook-tls"))


@pytest.fixture
def hooks(certificate):
    return Webhooks(allow=LOCAL, ca_file=str(certificate[1]), timeout_seconds=1.0)


@pytest.fixture
async def node(db, valkey_url, tmp_path, hooks):  # noqa: F811
    found = make_node(db, valkey_url, settings=Settings(data=str(tmp_path), webhooks=hooks))
    async with ringing(db, found.redis):
        yield found
    await found.redis.aclose()


@pytest.fixture
def app(node):
    return create_app(node)


@dataclass
class Desk:
    """Somebody of the firm at the API, and what delivers."""

    firm: object
    web: object
    node: object
    url: str
    secrets: dict = field(default_factory=dict)

    @property
    def post(self):
        settings = self.node.settings.webhooks
        return Post(
            db=self.node.db, box=self.node.webhook_box, origin=1, settings=settings, pace=QUICK,
            look_up=resolve,
        )  # fmt: skip

    async def call(self, method, path="", status=200, **json):
        send = {"json": json} if method in ("POST", "PATCH") else {}
        answer = await self.web.request(method, f"/api/v1/webhooks{path}", **send)
        assert answer.status_code == status, answer.text
        return answer.json() if answer.content else None

    async def make(self, port, *, profile="salesperson", unit="north", watch=None, **more):
        """A webhook of a salesperson of one branch, for deals; its id."""
        units = [str(self.firm.tenant.units[unit])]
        given = {
            "name": "Shop", "url": f"https://localhost:{port}/hook", "profile": profile,
            "units": units, "watches": [{"kind": "deal", **(watch or {})}], **more,
        }  # fmt: skip
        made = await self.call("POST", "", 201, **given)
        self.secrets[made["id"]] = made["secret"]
        return made["id"]

    async def state(self, ident):
        return await self.call("GET", f"/{ident}")

    async def deliveries(self, ident, state=""):
        path = f"/{ident}/deliveries" + (f"?state={state}" if state else "")
        return (await self.call("GET", path))["deliveries"]

    async def record(self, method, path, status=None, **json):
        send = {"json": json} if json else {}
        answer = await self.web.request(method, f"/api/v1/records/{path}", **send)
        assert answer.status_code in ((status,) if status else (200, 201, 204)), answer.text
        return answer.json() if answer.content else None

    async def deal(self, unit="north", **fields):
        made = await self.record(
            "POST", "deal", fields={"title": "T", **fields}, unit=str(self.firm.tenant.units[unit])
        )
        return made["id"]

    async def until(self, ident, check, seconds=30.0):
        """Wait until the webhook's own view fulfils a check."""
        end = asyncio.get_running_loop().time() + seconds
        while not check(seen := await self.state(ident)):
            assert asyncio.get_running_loop().time() < end, seen
            await asyncio.sleep(0.03)
        return seen


@pytest.fixture
async def firm(db, dsns, shared, request):  # noqa: F811
    return await _firm(db, dsns, shared, "hooks")


@pytest.fixture
async def desk(firm, node, sign_in):  # noqa: F811
    found = Desk(firm, await sign_in(firm, "owner"), node, "")
    yield found
    for webhook in (await found.call("GET"))["webhooks"]:
        await found.call("DELETE", f"/{webhook['id']}", 204)


@contextlib.asynccontextmanager
async def couriers(post, redis_url):
    """A courier at work, woken as in a worker."""
    redis = aioredis.Redis.from_url(redis_url)
    waker, stop = Waker(redis), asyncio.Event()
    going = asyncio.create_task(Courier(post, waker).follow(stop))
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(going, 5)
        await waker.close()
        await redis.aclose()


@pytest.fixture
async def courier(desk, valkey_url):  # noqa: F811
    async with couriers(desk.post, valkey_url):
        yield
