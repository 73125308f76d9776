"""Rows as a connector would stage them, for targets: a run whose reading is given by the test."""

import contextlib
from collections import Counter

import msgspec

from appliance.intake.plan import SORTS
from connectors.sdk import manifest, parent
from connectors.sdk.contract import (
    Done,
    Found,
    Inspection,
    Mapping,
    Place,
    Rows,
    StagedRow,
    Summary,
)

BLOCK = 3


class Staged:
    """What one file says, without the file."""

    def __init__(self, rows, facts=None, constants=None, summary=None):
        self.rows, self.facts, self.constants = rows, facts or {}, constants or {}
        self.summary = summary or Summary()

    async def inspect(self, _learned):
        return Found(Inspection("test", facts=self.facts), Mapping(constants=self.constants))

    async def read(self, _mapping):
        for start in range(0, len(self.rows), BLOCK):
            yield Rows(tuple(self.rows[start : start + BLOCK]))
        entities = Counter(r.entity for r in self.rows)
        summary = msgspec.structs.replace(
            self.summary, entities=dict(entities), facts={**self.facts, **self.summary.facts}
        )
        yield Done(len(self.rows), 0, "", {}, summary)


def row(entity, key, sheet="", faults=(), **values):
    """One staged row."""
    return StagedRow(Place(sheet, 1), entity, key, values, (), tuple(faults))


def speaking(vocabulary, tmp_path, monkeypatch):
    """A connector folder that does nothing but name its vocabulary."""
    folder = tmp_path / "systems" / "test_system"
    folder.mkdir(parents=True)
    (folder / "manifest.toml").write_text(
        f'key = "test_system"\nlabels = {{ en = "Test" }}\nentities = "{vocabulary}"\n'
    )
    monkeypatch.setattr(manifest, "SYSTEMS", folder.parent)


async def bring(desk, monkeypatch, staged, **more):
    """A run over these rows, planned."""

    @contextlib.asynccontextmanager
    async def opened(_system, _path, **_limits):
        yield staged

    monkeypatch.setattr(parent, "open_input", opened)
    content = repr((staged.rows, staged.facts)).encode()
    return await desk.bring(content, connector="test_system", **more)


def sorts(made):
    """Rows by class, without the zeros."""
    assert made.state in ("planned", "applied"), made.detail
    return {s: n for s, n in made.counts.items() if n and s in SORTS}
