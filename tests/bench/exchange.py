"""How long 1C waits for an answer to `mode=import` while a large package is checked, read, applied.

A whole node: a package in parts, then `import` asked for again and again, as 1C does. The floor is
an answer of the same door that does nothing (`mode=complete`) on the node at rest.
`BENCH_OFFERS` changes the size (200 000), `BENCH_APPLY=1` goes on asking while it is applied.
"""

import io
import os
import shutil
import statistics
import tempfile
import time
import zipfile
from pathlib import Path

import httpx

from tests.bench import harness
from tests.faults.node import Node
from tests.system.onec import OneC, catalogue, offers

OFFERS = int(os.environ.get("BENCH_OFFERS", "200000"))
APPLY = bool(os.environ.get("BENCH_APPLY"))
PART = 16 << 20
PAUSE_S, AT_REST = 0.1, 100
NAMES = ("import0_1.xml", "offers0_1.xml")
CHUNK = 50_000


async def main():
    folder = Path(tempfile.mkdtemp(prefix="nexus-bench-"))
    folder.chmod(0o755)
    node = Node(folder / "data")
    try:
        node.start()
        node.init()
        measure(node)
    finally:
        node.stop()
        shutil.rmtree(folder, ignore_errors=True)


def measure(node):
    headers = {"Authorization": f"Bearer {node.login()}"}
    asked = {"label": "1C", "profile": "owner"}
    key = httpx.post(f"{node.url}/api/v1/keys", json=asked, headers=headers, timeout=30)
    onec = OneC(node.url, key.json()["token"])
    content = package()
    print(f"{OFFERS} offers, {len(content) / 1e6:.1f} MB packed", flush=True)
    onec.sign_in()
    onec.ask("init")
    rest = [timed(onec, "complete")[0] for _ in range(AT_REST)]
    onec.send("v8_1A2B_3c.zip", content, PART)
    took, states, began = [], set(), time.perf_counter()
    for name in NAMES:
        said = ["progress"]
        while said[0] == "progress":
            seconds, said = timed(onec, "import", name)
            took.append(seconds)
            states.add(said[1] if len(said) > 1 else "")
            time.sleep(PAUSE_S)
        assert said[0] == "success", said
    print(
        f"read in {time.perf_counter() - began:.0f} s, {len(took)} answers: {said[1]}", flush=True
    )
    tell("while it is checked and read", took, rest)
    if APPLY:
        tell("while it is applied", applying(onec, node, headers), rest)


def applying(onec, node, headers):
    took, state = [], ""
    while state not in ("applied", "failed"):
        took.append(timed(onec, "import", NAMES[0])[0])
        found = httpx.get(f"{node.url}/api/v1/intake/runs", headers=headers, timeout=60)
        state = found.json()["runs"][0]["state"]
        time.sleep(PAUSE_S)
    assert state == "applied", state
    return took


def package():
    """In chunks, as 1C writes a large base: a member may not unpack to more than 64 MB."""
    made, held = "2026-11-20T10:00:00", io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for n, start in enumerate(range(1, OFFERS + 1, CHUNK), 1):
            ids = range(start, min(start + CHUNK, OFFERS + 1))
            price = offers(ids, made=made, price=lambda i: f"{i}.50", stock=lambda i: i % 90)
            archive.writestr(f"import0_{n}.xml", catalogue(ids, made=made))
            archive.writestr(f"offers0_{n}.xml", price)
    return held.getvalue()


def timed(onec, mode, name=None):
    began = time.perf_counter()
    said = onec.ask(mode, **({"filename": name} if name else {}))
    return time.perf_counter() - began, said


def tell(what, took, rest):
    for name, of in (("p50", statistics.median), ("p95", p95), ("longest", max)):
        mine, floor = of(took) * 1e3, of(rest) * 1e3
        harness.report(f"import answers {what}, {name}", mine, floor, "2 000 ms", "ms")


def p95(values):
    return sorted(values)[int(len(values) * 0.95)]
