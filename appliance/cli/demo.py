"""`nexus demo …`: a hub and two branches on one machine, joined over links that can be cut.

For looking at what a branch does alone. Everything is the ordinary program: three nodes with data
folders of their own, joined by one-time codes; only the links between them are ours
(`demo_link.py`). The walk that shows it is `demo_walk.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import signal
import subprocess
import sys
import time
import urllib.request
from asyncio.subprocess import Process
from pathlib import Path
from typing import Literal

import msgspec

from appliance.base.errors import Misconfigured, Unavailable
from appliance.cli.demo_link import Links, Place, Weather, read_weather, write_weather
from appliance.cli.demo_walk import Crew, Desk, furnish, walk
from appliance.runtime.account import child_setup, own_account, write_private
from appliance.runtime.supervisor import wait_for_stop

HUB, SITES = "hub", ("north", "south")
TENANT, COMPANY = "demo", "Demo company"
PORT = 8570
START_S, STOP_S, JOIN_S = 180.0, 90.0, 120.0
CREW, WEATHER = "demo.json", "weather.json"
_CODE = re.compile(r"nxj_[A-Za-z0-9_-]{60,}")


def branch(*, data: Path = Path("./nexus-branches"), port: int = PORT) -> None:
    """Run a hub and two branches in the foreground; Ctrl-C stops all three, the data stays.

    Parameters
    ----------
    data: one folder for the three nodes.
    port: the hub's; the branches have the next tens.
    """
    asyncio.run(_branch(data.expanduser().absolute(), port))


def link(
    what: Literal["cut", "heal", "show"],
    site: Literal["north", "south", "both"] = "both",
    *,
    data: Path = Path("./nexus-branches"),
) -> None:
    """Cut the link between a branch and the hub, heal it, or say how it is.

    Parameters
    ----------
    what: cut, heal or show.
    site: north, south, or both.
    data: the folder of `nexus demo branch`.
    """
    path = _running(data) / WEATHER
    weather = read_weather(path)
    for name in SITES if site == "both" else (site,):
        now = weather.get(name, Weather())
        if what != "show":
            weather[name] = now = msgspec.structs.replace(now, is_cut=what == "cut")
        print(f"{name}: {'cut' if now.is_cut else 'whole'}")
    if what != "show":
        write_weather(path, weather)


def show(*, data: Path = Path("./nexus-branches")) -> int:
    """Cut the links, work at both branches, heal, and look: exit code 1 when something is not so.

    Parameters
    ----------
    data: the folder of `nexus demo branch`, which is running.
    """
    folder = _running(data)
    crew = msgspec.json.decode((folder / CREW).read_bytes(), type=Crew)

    def cut(is_cut: bool) -> None:  # noqa: FBT001 - a switch
        write_weather(folder / WEATHER, dict.fromkeys(SITES, Weather(is_cut=is_cut)))

    return walk(crew, cut)


def _running(data: Path) -> Path:
    folder = data.expanduser().absolute()
    if not (folder / CREW).exists():
        raise Misconfigured(
            f"{folder} holds no demo that is up. Start one with `nexus demo branch --data {folder}` "
            "and wait until it prints its addresses."
        )
    return folder


async def _branch(folder: Path, port: int) -> None:
    ports = {HUB: port, **{site: port + 10 * n for n, site in enumerate(SITES, 1)}}
    places = [Place(site, ports[site] + 5, port) for site in SITES]
    folder.mkdir(parents=True, exist_ok=True)
    write_weather(folder / WEATHER, {})
    links = Links(places, folder / WEATHER)
    await links.start()
    nodes = {name: await _start(folder, name, ports[name]) for name in ports}
    stop = asyncio.create_task(wait_for_stop())
    ready = asyncio.create_task(_make_ready(folder, ports, places, nodes))
    try:
        await asyncio.wait((stop, ready), return_when=asyncio.FIRST_COMPLETED)
        if ready.done():
            _greet(folder, ready.result())
            await stop
        print("Stopping…", flush=True)
    finally:
        ready.cancel()
        stop.cancel()
        await asyncio.gather(*(_end(process) for process in nodes.values()))
        await links.stop()
    print("Stopped.", flush=True)


async def _make_ready(
    folder: Path, ports: dict[str, int], places: list[Place], nodes: dict[str, Process]
) -> Crew:
    print(
        f"Starting a hub and two branches in {folder}; the first time takes a minute…", flush=True
    )
    await asyncio.gather(*(_wait_ready(folder, n, ports[n], nodes[n]) for n in ports))
    crew = await asyncio.to_thread(_prepare, folder, ports)
    await _join_all(folder, {p.name: p.port for p in places}, crew)
    return crew


async def _start(folder: Path, name: str, port: int) -> Process:
    """One node with its settings in its own folder, so that commands need no more than --data."""
    data = folder / name
    data.mkdir(exist_ok=True)
    role = HUB if name == HUB else "site"
    lines = [f'role = "{role}"', f"port = {port}"]
    (data / "nexus.toml").write_text("\n".join(lines) + "\n", "utf-8")
    with (folder / f"{name}.log").open("ab") as log:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "appliance", "up", "--data", str(data),
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=_environment(),
            # Ctrl-C comes to us alone, and a demo that is killed leaves no node behind.
            preexec_fn=child_setup(own_account(), signal.SIGTERM),
        )  # fmt: skip


def _environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith("NEXUS_")}


async def _wait_ready(folder: Path, name: str, port: int, node: Process) -> None:
    def probe() -> bool:
        with contextlib.suppress(OSError):
            url = f"http://127.0.0.1:{port}/health/ready"
            with urllib.request.urlopen(url, timeout=2) as answer:
                return bool(answer.status == 200)
        return False

    end = time.monotonic() + START_S
    while not await asyncio.to_thread(probe):
        if node.returncode is not None or time.monotonic() > end:
            raise Unavailable(f"{name} did not start; see {folder / name}.log.", dependency=name)
        await asyncio.sleep(0.3)


async def _end(process: Process) -> None:
    if process.returncode is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), STOP_S)
    except TimeoutError:
        process.kill()
        await process.wait()


def _command(folder: Path, name: str, *words: str) -> str:
    """A command on a node's folder, as a person types it. Raises Unavailable with what it said."""
    done = subprocess.run(  # noqa: S603 - this program
        [sys.executable, "-m", "appliance", *words, "--data", str(folder / name)],
        capture_output=True, text=True, check=False, env=_environment(),
    )  # fmt: skip
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise Unavailable(f"nexus {' '.join(words[:2])} at {name}: {said}", dependency=name)
    return done.stdout


def _prepare(folder: Path, ports: dict[str, int]) -> Crew:
    """The company at the hub with people for both branches; the first time only."""
    path = folder / CREW
    urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    if path.exists():
        found = msgspec.json.decode(path.read_bytes(), type=Crew)
        return msgspec.structs.replace(found, urls=urls)
    password = secrets.token_urlsafe(12)
    secret = folder / "owner-password"
    write_private(own_account(), secret, password)
    try:
        _command(folder, HUB, "init", "--tenant", TENANT, "--name", COMPANY, "--email",
                 "owner@demo.example", "--password-file", str(secret))  # fmt: skip
    finally:
        secret.unlink()
    owner = Desk(HUB, urls[HUB], TENANT, "owner@demo.example", password)
    crew = furnish(owner, TENANT, urls)
    write_private(own_account(), path, msgspec.json.encode(crew).decode())
    return crew


async def _join_all(folder: Path, ports: dict[str, int], crew: Crew) -> None:
    """Let each branch in by a code of its own, over its link; one that is in already stays."""

    def join(site: str) -> None:
        desk = crew.desk(site)
        if desk.can_sign_in():
            return
        said = _command(folder, HUB, "node", "invite", site, "--prefix", site[0].upper(),
                        "--tenant", TENANT)  # fmt: skip
        code = _CODE.search(said)
        if code is None:
            raise Unavailable("nexus node invite printed no code.", dependency=HUB)
        url = f"http://127.0.0.1:{ports[site]}"
        _command(folder, site, "node", "join", url, "--code", code.group())
        end = time.monotonic() + JOIN_S
        while not desk.can_sign_in():
            if time.monotonic() > end:
                raise Unavailable(
                    f"Nobody can sign in at {site} yet; see its log.", dependency=site
                )
            time.sleep(0.3)

    await asyncio.gather(*(asyncio.to_thread(join, site) for site in SITES))


def _greet(folder: Path, crew: Crew) -> None:
    lines = ["", f"A hub and two branches are up: tenant {TENANT}."]
    lines += [
        f"  {d.node:6} {d.url}/api/v1   {d.email}  password {d.password}" for d in crew.desks()
    ]
    lines += [
        "", "  Cut the links, heal them, or one of them; and the walk that does all and looks:",
        f"    nexus demo link cut [north|south] --data {folder}",
        f"    nexus demo link heal --data {folder}",
        f"    nexus demo show --data {folder}",
        f"  or: make demo-branch-cut, demo-branch-heal, demo-branch-show. Logs: {folder}/*.log",
        "  Stop with Ctrl-C.", "",
    ]  # fmt: skip
    print("\n".join(lines), flush=True)
