"""One command on its way through the stages: the only mutable thing of the write path."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from appliance.base.errors import FieldFault
from appliance.kernel.arrival import Past
from appliance.kernel.change import Entry
from appliance.kernel.kind import Field, Json, Kind
from appliance.kernel.record import RecordState
from appliance.write.command import Command
from appliance.write.outcome import Outcome


@dataclass(slots=True)
class Draft:
    """`values` are canonical by field id; `registers` are what the entry will cover.

    `follows`: the document that this record goes into another unit with. `past`: of a record that
    moves, what its new home has to know. `pointing`: of a deletion the entries that pointed to the
    record, as far as they are known here.
    """

    place: int
    command: Command
    id: UUID
    kind: Kind | None = None
    values: dict[str, Json] = field(default_factory=dict)
    faults: list[FieldFault] = field(default_factory=list)
    status: int = 422
    before: RecordState | None = None
    unit: UUID | None = None
    owner: UUID | None = None
    after: RecordState | None = None
    entries: list[Entry] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    outcome: Outcome | None = None
    follows: Draft | None = None
    past: Past | None = None
    pointing: list[str] | None = None

    @property
    def is_consequence(self) -> bool:
        """Whether nobody asked for it: it is written because something else is."""
        return self.place < 0

    @property
    def is_open(self) -> bool:
        """Whether later stages still have something to do with it."""
        return self.outcome is None and not self.faults

    def fault(self, pointer: str, code: str, detail: str, *, status: int = 422) -> None:
        """Add a fault; the batch goes on to collect them all."""
        if not self.faults or status == 404:
            self.status = status
        self.faults.append(FieldFault(pointer, code, detail))

    def refuse_unknown(self) -> None:
        """Unknown and forbidden read alike."""
        self.faults.clear()
        self.fault("/id", "record_unknown", "There is no such record for you.", status=404)


def changed_fields(draft: Draft) -> list[Field]:
    """The fields a draft writes."""
    assert draft.kind is not None, "validated drafts have a kind"
    return [draft.kind.by_fid[fid] for fid in draft.values if fid in draft.kind.by_fid]
