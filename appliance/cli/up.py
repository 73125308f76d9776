"""`nexus up`: a whole node in the foreground. `serve` and `work` are its two processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import sys
import time
import urllib.request
from pathlib import Path

import msgspec

import appliance
from appliance import assemble
from appliance.base import logs
from appliance.base.errors import Unavailable
from appliance.base.roles import Role
from appliance.base.settings import Settings, load
from appliance.channels import feeds
from appliance.cli.first import import_demo_list
from appliance.cli.identity import adopt_role, follow_identity, read_identity
from appliance.cli.node import ENDPOINTS, prepare, read_settings, servers_of, services_of
from appliance.exchange import box
from appliance.install import NewTenant, create_tenant
from appliance.intake import files
from appliance.runtime.account import Account, give, may_execute, own_account, write_private
from appliance.runtime.content import ContentOptions
from appliance.runtime.services import Endpoints, Services
from appliance.runtime.supervisor import Unit, wait_for_stop
from appliance.sync import keys
from appliance.work.main import run_worker

READY_TIMEOUT_S = 60.0
# A worker that answers nothing for this long hangs; on a busy machine 5 s (the default) is work.
WORKER_SILENCE_S = 30
PASSWORD_FILE = "initial-owner-password"  # noqa: S105 - the name of a file
LOOK = "price select product.name, price, currency in_force limit 5"
PROGRAM_ENVIRONMENT = {
    "PYTHONPATH": str(Path(appliance.__file__).resolve().parents[1]),
    "PYTHONDONTWRITEBYTECODE": "1",
    "PATH": "/usr/bin:/bin",
    "LC_ALL": "C.UTF-8",
}
DEMO = ("demo", "Demo company", "owner@demo.example")


def up(
    *,
    data: str | None = None,
    port: int | None = None,
    role: Role | None = None,
    demo: bool = False,
) -> None:
    """Run a whole node in the foreground, services included; Ctrl-C stops it.

    Parameters
    ----------
    data: the data folder (NEXUS_DATA).
    port: where the API listens, on 127.0.0.1 unless http.host says otherwise (NEXUS_PORT).
    role: solo, hub or site (NEXUS_ROLE).
    demo: make a demo tenant when there is no tenant yet.
    """
    settings = read_settings(data, port=port, role=role)
    asyncio.run(_up(settings, demo=demo))


async def _up(settings: Settings, *, demo: bool) -> None:
    began = time.monotonic()
    services = services_of(settings)
    endpoints = await services.start()
    try:
        servers = servers_of(settings, endpoints, services)
        await prepare(settings, endpoints, servers)
        settings = await adopt_role(settings, endpoints.control_dsn)
        identity = await read_identity(endpoints.control_dsn)
        account = _program_account(services)
        env = _environment(settings, endpoints, account)
        owner = await _first_tenant(settings, endpoints, services, demo=demo)
        await _start_content(settings, endpoints, services)
        programs = [_api(settings, account, env), _worker(account, env)]
        for program in programs:
            await services.supervisor.start(program)

        async def restart() -> None:
            role = (await adopt_role(settings, endpoints.control_dsn)).role.value
            for program in programs:
                program.env = {**program.env, "NEXUS_ROLE": role}
                await services.supervisor.restart(program)

        following = asyncio.create_task(
            follow_identity(endpoints.control_owner_dsn, identity, restart)
        )
        _greet(settings, endpoints, owner, time.monotonic() - began)
        sweep = asyncio.create_task(_sweep_password(settings.data_dir / PASSWORD_FILE))
        await wait_for_stop()
        sweep.cancel()
        following.cancel()
        print("Stopping…", flush=True)
    finally:
        await services.stop()
    print("Stopped.", flush=True)


async def _start_content(settings: Settings, endpoints: Endpoints, services: Services) -> None:
    """The content plane, unless it runs elsewhere: it is told of no database."""
    files = settings.files
    if files.plane_url:
        return
    services.content.prepare()
    options = ContentOptions(
        host=settings.http.host, port=settings.files_port, redis_url=endpoints.files_redis_url,
        clamd=endpoints.scanner.socket, baseline_is_enough=files.baseline_is_enough,
        bucket=files.bucket, bucket_endpoint=files.bucket_endpoint,
        bucket_region=files.bucket_region, packs=files.packs, pack_keys=files.pack_keys,
    )  # fmt: skip
    for unit in services.content.units(options, PROGRAM_ENVIRONMENT):
        await services.supervisor.start(unit)


def _program_account(services: Services) -> Account:
    """API and worker run as the service account too, where it can read the program."""
    if may_execute(services.account, Path(sys.executable)):
        return services.account
    print(
        "Note: the service account cannot reach this Python, so the API and the worker run as the "
        "user who started the node. `make run` installs it where the account can.", flush=True,
    )  # fmt: skip
    return own_account()


def _environment(settings: Settings, endpoints: Endpoints, account: Account) -> dict[str, str]:
    """What the processes are told: the folder, and where the services are, in a private file."""
    path = settings.data_dir / ENDPOINTS
    assemble.write_endpoints(path, msgspec.structs.replace(endpoints, port=settings.port))
    give(account, path, 0o600)
    key = settings.data_dir / "cursor.key"
    assemble.load_key(key)
    give(account, key, 0o600)
    keys.load_key(settings.data_dir)
    give(account, settings.data_dir / keys.KEY_FILE, 0o600)
    for name in (files.FOLDER, box.FOLDER, feeds.FOLDER):
        folder = settings.data_dir / name
        folder.mkdir(mode=0o700, exist_ok=True)
        give(account, folder, 0o700)
    env = {k: v for k, v in os.environ.items() if k.startswith("NEXUS_")}
    return env | {
        "NEXUS_DATA": str(settings.data_dir),
        "NEXUS_PORT": str(settings.port),
        "NEXUS_ROLE": settings.role.value,
        "NEXUS_ENDPOINTS_FILE": str(path),
        **PROGRAM_ENVIRONMENT,
    }


def _api(settings: Settings, account: Account, env: dict[str, str]) -> Unit:
    argv = [sys.executable, "-m", "appliance", "serve"]

    async def ready() -> None:
        await _wait_http(settings)

    return Unit("api", argv, account, ready, env)


def _worker(account: Account, env: dict[str, str]) -> Unit:
    async def ready() -> None:
        await asyncio.sleep(0)

    return Unit(
        "worker", [sys.executable, "-m", "appliance", "work"], account, ready, env, grace_s=30.0
    )


async def _wait_http(settings: Settings) -> None:
    url = f"http://{_host(settings)}:{settings.port}/health/ready"
    end = time.monotonic() + READY_TIMEOUT_S

    def probe() -> bool:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    while not await asyncio.to_thread(probe):
        if time.monotonic() > end:
            raise Unavailable("The API did not become ready; see log/api.log.", dependency="api")
        await asyncio.sleep(0.1)


def _host(settings: Settings) -> str:
    return "127.0.0.1" if settings.http.host in ("0.0.0.0", "::") else settings.http.host  # noqa: S104


async def _first_tenant(
    settings: Settings, endpoints: Endpoints, services: Services, *, demo: bool
) -> str | None:
    """The one-time password of a demo tenant made now; None when there is a tenant already."""
    if not demo:
        return None
    db = assemble.open_database(settings, endpoints)
    await db.start()
    try:
        if db.routes.all():
            return None
        me = await assemble.find_self(db)
        slug, name, email = DEMO
        password = secrets.token_urlsafe(12)
        new = NewTenant(
            slug=slug, name=name, email=email, password=password, template="multi_branch_sales",
            # A demo is for looking at first; tenants made for work ask for a password of one's own.
            must_change=False,
        )  # fmt: skip
        servers = servers_of(settings, endpoints, services)
        await create_tenant(db, servers, new, origin=me.origin)
        print("Importing the demo price list…", flush=True)
        await import_demo_list(db, settings, slug, email, me.origin)
    finally:
        await db.stop()
    write_private(services.account, settings.data_dir / PASSWORD_FILE, password + "\n")
    return password


async def _sweep_password(path: Path) -> None:
    """Remove the first password's file once the API has emptied it: the folder is not the API's."""
    while path.exists():
        with contextlib.suppress(OSError):
            if not path.stat().st_size:
                path.unlink()
        await asyncio.sleep(1.0)


def _greet(settings: Settings, endpoints: Endpoints, password: str | None, took_s: float) -> None:
    base = f"http://{_host(settings)}:{settings.port}"
    lines = [
        "",
        f"Nexus {appliance.__version__} is up after {took_s:.1f} s (role {settings.role.value}).",
        f"  API      {base}/api/v1   OpenAPI {base}/schema/openapi.json",
        f"  Data     {settings.data_dir}   logs in {settings.data_dir / 'log'}",
        f"  Scanner  {endpoints.scanner.sentence}"
        if not settings.files.plane_url
        else f"  Files    the content plane at {settings.files.plane_url}",
    ]
    if password is not None:
        slug, _, email = DEMO
        lines += [
            f"  Demo     tenant {slug}, {email}, one-time password: {password}",
            f"           (kept in {settings.data_dir / PASSWORD_FILE} until you change it)",
            "  Prices   a supplier's list is imported; look at what is in force:",
            f"           nexus query '{LOOK}' --tenant {slug} --data {settings.data_dir}",
        ]
    lines += ["  Stop with Ctrl-C.", ""]
    print("\n".join(lines), flush=True)


def serve() -> None:
    """The API process alone; NEXUS_ENDPOINTS_FILE says where the services are."""
    import uvicorn

    settings = load()
    uvicorn.run(
        "appliance.assemble:asgi",
        host=settings.http.host,
        port=settings.port,
        workers=settings.http.workers,
        timeout_worker_healthcheck=WORKER_SILENCE_S,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=10,
        forwarded_allow_ips=settings.http.trusted_proxies or None,
        server_header=False,
    )


def work() -> None:
    """The worker process alone: relay, scheduler, jobs."""
    settings = load()
    logs.configure(level=settings.log_level)
    asyncio.run(_work(settings))


async def _work(settings: Settings) -> None:
    endpoints = assemble.read_endpoints(Path(os.environ["NEXUS_ENDPOINTS_FILE"]))
    node = await assemble.worker_node(settings, endpoints)
    try:
        await run_worker(node)
    finally:
        await node.db.stop()
