"""The same handle as `link.Wan` over the TCP proxy of `nexus demo`, where namespaces may not be made.

`python -m tests.branch.proxy FOLDER` runs the links of `places.json` there.
"""

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path

import msgspec

from appliance.cli.demo_link import Links, Place, Weather, write_weather
from tests.branch import below
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
FAR = Weather(delay_s=0.15, rate=250_000, break_after=400_000, stall_after=600_000)


class Proxied:
    """Links on loopback. Weather in the words of `Wan.set`; loss becomes broken connections."""

    kind = "TCP proxies on loopback (no network namespaces here)"

    def __init__(self, folder, sites, hub_port, seed=1):
        self.folder, self.seed = Path(folder), seed
        self.places = [Place(site, free_port(), hub_port) for site in sites]
        self.hub_url = {p.name: f"http://127.0.0.1:{p.port}" for p in self.places}
        self.weather = dict.fromkeys(sites, FAR)
        self.process = None
        self.folder.mkdir(parents=True, exist_ok=True)

    def start(self):
        given = {"seed": self.seed, "places": [msgspec.to_builtins(p) for p in self.places]}
        (self.folder / "places.json").write_text(json.dumps(given))
        write_weather(self.folder / "weather.json", self.weather)
        self.process = below.start(
            [sys.executable, "-m", "tests.branch.proxy", str(self.folder)],
            stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        assert self.process.stdout.readline() == "up\n", "the link did not start"

    def set(self, site, *, is_down=None, delay=None, loss=None, rate=None, **_more):
        words = {"is_cut": is_down, "delay_s": delay, "rate": rate,
                 "break_after": int(10_000 / loss) if loss else None}  # fmt: skip
        found = {k: v for k, v in words.items() if v is not None}
        self.weather[site] = msgspec.structs.replace(self.weather[site], **found)
        write_weather(self.folder / "weather.json", self.weather)

    def cut(self, site):
        self.set(site, is_down=True)

    def heal(self, site):
        self.weather[site] = msgspec.structs.replace(
            self.weather[site], is_cut=False, is_half_open=False
        )
        write_weather(self.folder / "weather.json", self.weather)

    def forget(self, site):
        """Half-open: what is said arrives nowhere, and nobody is told."""
        self.weather[site] = msgspec.structs.replace(self.weather[site], is_half_open=True)
        write_weather(self.folder / "weather.json", self.weather)

    def stop(self):
        if self.process is None:
            return {}
        self.process.send_signal(signal.SIGTERM)
        told, _ = self.process.communicate(timeout=10)
        self.process = None
        return json.loads(told.strip().splitlines()[-1])


async def main(folder):
    given = json.loads((folder / "places.json").read_text())
    places = [msgspec.convert(p, Place) for p in given["places"]]
    links = Links(places, folder / "weather.json", seed=given["seed"])
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await links.start()
    print("up", flush=True)
    await stop.wait()
    await links.stop()
    print(json.dumps({name: link.count for name, link in links.links.items()}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
