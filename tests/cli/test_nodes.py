"""The commands of nodes: a new folder becomes a site, goes on after a break, and says what it is."""

import asyncio
import contextlib
import os
import socket

import pytest
import uvicorn

from appliance import tenancy
from appliance.base.errors import Clash, Invalid, Refused
from appliance.base.roles import Role
from appliance.base.settings import Settings
from appliance.cli import identity
from appliance.cli import nodes as commands
from appliance.http.app import create_app
from appliance.sync import nodes
from appliance.sync.keys import fingerprint, load_key
from tests.http.conftest import make_node
from tests.sync.sites import hub_row

pytestmark = pytest.mark.anyio


@pytest.fixture
async def hub(db, dsns, valkey_url, tmp_path):
    """A hub that listens, with the folder of its key."""
    node = make_node(db, valkey_url, settings=Settings(data=str(tmp_path / "hub")), role=Role.HUB)
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    config = uvicorn.Config(create_app(node), host="127.0.0.1", port=port, log_config=None)
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.02)
    async with hub_row(db, dsns):
        yield f"http://127.0.0.1:{port}", tmp_path / "hub"
    server.should_exit = True
    await task
    await node.redis.aclose()


@pytest.fixture
def at_hub(db, monkeypatch):
    """The hub's commands over the database of the tests, which is open already."""

    @contextlib.asynccontextmanager
    async def opened(settings):
        yield commands.Opened(settings, None, db, None, 1)

    @contextlib.contextmanager
    def used():
        with monkeypatch.context() as patch:
            patch.setattr(commands, "opened", opened)
            patch.setattr(commands.asyncio, "run", _here)
            yield

    return used


def _here(coroutine):
    """Run a command's work in the loop of the test, from a thread of its own."""
    return asyncio.run_coroutine_threadsafe(coroutine, _loops[-1]).result(60)


_loops = []


async def said(capsys, function, *given, **named):
    _loops.append(asyncio.get_running_loop())
    await asyncio.to_thread(function, *given, **named)
    return capsys.readouterr().out


async def invited(at_hub, capsys, folder, firm, **more):
    mark = os.urandom(2).hex().upper()
    with at_hub():
        text = await said(capsys, commands.invite, f"branch {mark}", prefix=f"C{mark}",
                          tenant=firm.slug, data=str(folder), **more)  # fmt: skip
    return next(word for word in text.split() if word.startswith("nxj_")), text, f"branch {mark}"


@pytest.mark.slow
async def test_a_folder_becomes_a_site_and_goes_on_after_a_break(
    db, firm, hub, at_hub, capsys, folder, monkeypatch
):
    url, home = hub
    code, text, name = await invited(at_hub, capsys, home, firm, units="north, SOUTH")
    mark = fingerprint(load_key(home).public)
    assert mark in text
    data = str(folder / "site")
    with pytest.raises(Invalid):
        await asyncio.to_thread(commands.join, "http://8.8.8.8", code=code, data=data)
    for room, step in (
        (commands.joining, "ask_to_join"), (commands, "_answer_of"), (tenancy, "create_tenant"),
        (commands.joining, "take_tenant"), (commands.joining, "take_node"), (tenancy, "activate"),
    ):  # fmt: skip
        with monkeypatch.context() as patch, pytest.raises(_Killed):
            patch.setattr(room, step, _ends_after(getattr(room, step)))
            await asyncio.to_thread(commands.join, url, code=code, data=data)
    assert (folder / "site" / commands.PENDING).stat().st_mode & 0o777 == 0o600
    out = await said(capsys, commands.join, url, data=data)
    assert "Going on with the join" in out and mark in out
    own = fingerprint(load_key(folder / "site").public)
    assert own in out and not (folder / "site" / commands.PENDING).exists()
    with pytest.raises(Clash):
        await asyncio.to_thread(commands.join, url, code=code, data=data)
    out = await said(capsys, commands.status, data=data)
    assert f"{name}: site" in out and f"Hub hub at {url}" in out and own in out
    before = own
    with at_hub():
        # The site does not know it yet.
        await said(capsys, commands.rotate, data=str(home))
    out = await said(capsys, commands.rotate, data=data)
    own = fingerprint(load_key(folder / "site").public)
    assert own != before and own in out
    with at_hub():
        out = await said(capsys, commands.list_, tenant=firm.slug, data=str(home))
        assert own in out and "2 units" in out
        out = await said(capsys, commands.revoke, name, tenant=firm.slug, data=str(home))
    assert "is revoked" in out


class _Killed(BaseException):
    """The end of a process, where a test can see it."""


def _ends_after(step):
    async def run(*given, **named):
        await step(*given, **named)
        raise _Killed

    return run


async def test_commands_say_what_they_do_not_know(firm, hub, at_hub, capsys):
    _, home = hub
    with pytest.raises(Refused, match="no unit nowhere"):
        await invited(at_hub, capsys, home, firm, units="nowhere")
    with at_hub(), pytest.raises(Refused, match="no node nobody"):
        await said(capsys, commands.revoke, "nobody", data=str(home))
    with at_hub():
        assert "hub: hub" in await said(capsys, commands.status, data=str(home))


async def test_a_hub_gets_a_new_key_that_the_old_one_signed(db, dsns, hub, at_hub, capsys):
    _, home = hub
    old = load_key(home).public
    servers = tenancy.Servers(control_dsn=dsns.control_owner, placement_dsn=dsns.pool_owner)
    # One that is suspended has no audit to write to, and stops nobody.
    shut = await tenancy.create_tenant(servers, "shut-firm", "Firm", "pool")
    await tenancy.activate(servers, shut.id)
    await tenancy.suspend(servers, shut.id)
    await db.routes.refresh()
    with at_hub():
        await said(capsys, commands.rotate, data=str(home))
    new = load_key(home).public
    (proof,) = await nodes.read_rotations(db, (await nodes.find_self(db)).id)
    assert (proof.old_key, proof.new_key) == (old, new)
    await tenancy.close_tenant(servers, shut.id)


async def test_processes_start_anew_when_the_node_becomes_another(db, dsns, hub, monkeypatch):
    monkeypatch.setattr(identity, "POLL_S", 0.02)
    running = await identity.read_identity(dsns.control_owner)
    assert (running.origin, running.role, running.has_joined) == (1, "hub", False)
    settings = Settings(role=Role.SOLO)
    assert await identity.adopt_role(settings, dsns.control_owner) == settings
    began = asyncio.Event()

    async def restart():
        began.set()

    task = asyncio.create_task(identity.follow_identity(dsns.control_owner, running, restart))
    try:
        await _until(db, 1)
        assert not began.is_set()
        await nodes.run_control(
            db, "UPDATE node SET origin = 4000, role = 'site', joined_at = now() WHERE is_self"
        )
        await _until(db, 4000)
        assert began.is_set(), "noted as running only after the restart"
    finally:
        task.cancel()
    assert (await identity.adopt_role(settings, dsns.control_owner)).role is Role.SITE


async def _until(db, origin):
    async with asyncio.timeout(10):
        while (await nodes.run_control(db, "SELECT running_origin FROM node WHERE is_self")) != [
            (origin,)
        ]:
            await asyncio.sleep(0.02)
