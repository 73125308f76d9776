"""Health and metrics say how the content plane stands, and never wait for it."""

import socket
import time

import pytest

from appliance.content import ContentPlane
from appliance.http.app import create_app
from appliance.http.metrics import FileFigures
from quarantine.contract import Status
from tests.http.conftest import client_of, make_node

pytestmark = pytest.mark.anyio


@pytest.fixture
def silent():
    """Takes connections and never answers."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        found.listen(16)
        yield f"http://127.0.0.1:{found.getsockname()[1]}"


async def test_a_plane_that_answers_is_up_and_counted(client):
    ready = (await client.get("/health/ready")).json()
    assert ready["checks"]["content"] == "up" and ready["checks"]["scanner"] == "down"
    text = (await client.get("/metrics")).text
    for line in (
        "nexus_files_held ",
        "nexus_files_plane_up 1.0",
        'nexus_files_scanner{state="down"} 1.0',
    ):
        assert line in text


async def test_a_plane_that_hangs_is_named_and_slows_nothing(db, valkey_url, silent):
    plane = ContentPlane(silent, silent, b"k" * 32)
    async with client_of(create_app(make_node(db, valkey_url, content=plane))) as client:
        began = time.monotonic()
        text = (await client.get("/metrics")).text
        assert time.monotonic() - began < 1.5
        assert "nexus_files_plane_up 0.0" in text and "nexus_files_held" not in text
        assert 'nexus_files_scanner{state="unknown"} 1.0' in text
        answer = await client.get("/health/ready")
        assert time.monotonic() - began < 5
        assert answer.status_code == 200
        assert answer.json()["status"] == "degraded"
        assert answer.json()["checks"]["content"] == "down"
    await plane.close()


async def test_a_node_without_a_plane_has_no_figures_of_files(db, valkey_url):
    async with client_of(create_app(make_node(db, valkey_url))) as client:
        assert (await client.get("/health/ready")).json()["checks"]["content"] == "none"
        assert "nexus_files" not in (await client.get("/metrics")).text


def test_tallies_become_counters_by_verdict_and_engine():
    figures = FileFigures()
    figures.has_plane = True
    tallies = {"verdicts.clean": 3.0, "findings.pdf": 1.0, "seconds.clamd": 0.5, "runs.clamd": 3.0}
    figures.status = Status("ready", "", "x", 1, 2.5, 3, 400, 0, tallies)
    found = {
        (s.name, *s.labels.values()): s.value
        for family in figures.collect()
        for s in family.samples
    }
    assert found["nexus_files_verdicts_total", "clean"] == 3
    assert found["nexus_files_findings_total", "pdf"] == 1
    assert found["nexus_files_scan_seconds_total", "clamd"] == 0.5
    assert found["nexus_files_scan_runs_total", "clamd"] == 3
    assert found["nexus_files_oldest_held_seconds",] == 2.5
