"""A link between a branch and its hub that can be cut: a TCP proxy on loopback.

For `nexus demo` and for tests where no network namespaces may be made. It is deliberately bad on
request: late, slow, broken at any byte, stalled, or half-open (a connection that nobody answers,
as behind a router that forgot it). What breaks is decided by a seed. The weather is a file,
`{name: {…}}`, which the link follows while it runs, so that another program may cut and heal it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from pathlib import Path

import msgspec

LOOK_S = 0.1
CHUNK_BYTES = 16_384
# What is on the way at most; more waits in the sender's own buffers, as on a real link.
ON_THE_WAY_MAX = 64


class Weather(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a link is now.

    `delay_s` is each way, `rate` bytes per second (0: no bound), `break_after` and `stall_after`
    bytes on average until a connection breaks or stalls (0: never).
    """

    is_cut: bool = False
    is_half_open: bool = False
    delay_s: float = 0.0
    rate: int = 0
    break_after: int = 0
    stall_after: int = 0
    stall_s: float = 2.0


class Place(msgspec.Struct, frozen=True):
    """A link's name in the weather, where it listens and where it leads, on loopback."""

    name: str
    port: int
    target: int


class Link:
    """One proxied port. `count` is connections, those broken, and bytes each way."""

    def __init__(self, place: Place, seed: int) -> None:
        self.place = place
        self.weather = Weather()
        self.count = {"connections": 0, "broken": 0, "up": 0, "down": 0}
        self._random = random.Random(f"{seed} {place.name}")  # noqa: S311 - weather, not secrets
        self._open: set[asyncio.StreamWriter] = set()
        self._passable = asyncio.Event()
        self._passable.set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen. Raises OSError when the port is taken."""
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", self.place.port)

    async def stop(self) -> None:
        """Stop listening and break what is open."""
        if self._server is not None:
            self._server.close()
        self._break_all()

    def change(self, weather: Weather) -> None:
        """Other weather from now on; a cut breaks what is open, as a pulled cable shows in the end."""
        was, self.weather = self.weather, weather
        if weather.is_half_open:
            self._passable.clear()
        else:
            self._passable.set()
        if weather.is_cut and not was.is_cut:
            self._break_all()

    def _break_all(self) -> None:
        for writer in tuple(self._open):
            self._break(writer)

    def _break(self, writer: asyncio.StreamWriter) -> None:
        """Reset, so that the other side learns it at once and what was on the way is lost."""
        found = writer.get_extra_info("socket")
        if found is not None:
            with contextlib.suppress(OSError):
                found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async def _carry(self, near_in: asyncio.StreamReader, near_out: asyncio.StreamWriter) -> None:
        if self.weather.is_cut:
            self._break(near_out)
            return
        self.count["connections"] += 1
        self._open.add(near_out)
        far_out: asyncio.StreamWriter | None = None
        try:
            far_in, far_out = await asyncio.open_connection("127.0.0.1", self.place.target)
            self._open.add(far_out)
            ways = (self._bring(near_in, far_out, "up"), self._bring(far_in, near_out, "down"))
            await asyncio.gather(*ways)
        except OSError:
            self.count["broken"] += 1
        finally:
            for writer in (near_out, far_out):
                if writer is not None:
                    self._open.discard(writer)
                    self._break(writer)

    async def _bring(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, way: str
    ) -> None:
        """One direction: read, keep each piece for the delay, write; both halves end together."""
        road: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(ON_THE_WAY_MAX)
        arriving = asyncio.create_task(self._arrive(road, target, way))
        clock = asyncio.get_running_loop().time
        try:
            while not arriving.done():
                piece = await source.read(CHUNK_BYTES)
                await road.put((clock() + self.weather.delay_s, piece))
                if not piece:
                    break
            await arriving
        finally:
            arriving.cancel()

    async def _arrive(
        self, road: asyncio.Queue[tuple[float, bytes]], target: asyncio.StreamWriter, way: str
    ) -> None:
        clock = asyncio.get_running_loop().time
        left, stall = self._draw(self.weather.break_after), self._draw(self.weather.stall_after)
        while True:
            due, piece = await road.get()
            await asyncio.sleep(max(0.0, due - clock()))
            await self._passable.wait()
            if not piece:
                if target.can_write_eof():
                    target.write_eof()
                return
            whole = len(piece) <= left
            piece = piece[: int(min(left, len(piece)))]
            left, stall = left - len(piece), stall - len(piece)
            if stall <= 0:
                await asyncio.sleep(self.weather.stall_s)
                stall = self._draw(self.weather.stall_after)
            if self.weather.rate:
                await asyncio.sleep(len(piece) / self.weather.rate)
            target.write(piece)
            await target.drain()
            self.count[way] += len(piece)
            if not whole:
                raise ConnectionResetError

    def _draw(self, mean: int) -> float:
        """How many bytes until the next misfortune."""
        return self._random.expovariate(1 / mean) if mean else float("inf")


class Links:
    """Several links that follow one file of weather."""

    def __init__(self, places: list[Place], weather: Path, *, seed: int = 1) -> None:
        self.links = {place.name: Link(place, seed) for place in places}
        self._path = weather
        self._follower: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen everywhere. Raises OSError."""
        for link in self.links.values():
            await link.start()
        self._follower = asyncio.create_task(self._follow(), name="follow-weather")

    async def stop(self) -> None:
        """Stop them all."""
        if self._follower is not None:
            self._follower.cancel()
        for link in self.links.values():
            await link.stop()

    async def _follow(self) -> None:
        while True:
            found = read_weather(self._path)
            for name, link in self.links.items():
                link.change(found.get(name, Weather()))
            await asyncio.sleep(LOOK_S)


def read_weather(path: Path) -> dict[str, Weather]:
    """The weather by link; fair where there is no file or it makes no sense."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Weather])
    except (OSError, msgspec.DecodeError):
        return {}


def write_weather(path: Path, weather: dict[str, Weather]) -> None:
    """Whole or not at all: the link may be reading."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(msgspec.json.encode(weather))
    partial.replace(path)
