"""Further barcodes of a product or variant: each stands once in the company, as a record of its own.

The first code of a row is the record's own field. A code that another record of the same source
bears moves to the one that has it now; one of a record that the source does not know stays where it
is, and that is told. What a source no longer names is left alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from uuid import UUID

import msgspec

from appliance.base.ids import parse_uuid
from appliance.db.database import Database
from appliance.db.values import text_of
from appliance.db.wire import Statement
from appliance.intake.ids import derived_id
from appliance.intake.refs import Refs, folded, slot_of
from appliance.intake.runs import IntakeRun
from appliance.intake.stage import Change
from appliance.intake.target import Row, create
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Json
from appliance.kernel.text import fold
from appliance.write import Command, Op
from connectors.sdk.contract import StagedRow

KIND = "barcode"
# The field of a change that stands for records of their own: code to the record that has it.
FIELD = "barcodes"
BEARERS = ("product", "variant")
_CODE = re.compile(r"[0-9A-Za-z-]{4,48}")
_decode = msgspec.json.Decoder(dict[str, Json]).decode


class Held(msgspec.Struct, frozen=True):
    """A code that is here: its record, whose it is, and whether it may go elsewhere."""

    record: str
    product: str
    variant: str
    may_move: bool


class Codes:
    """The codes that a block of rows speaks of."""

    def __init__(self, held: dict[str, Held]) -> None:
        self._held = held

    @classmethod
    async def load(cls, db: Database, ctx: Ctx, refs: Refs, rows: Sequence[StagedRow]) -> Codes:
        """Where they are now; nothing where the tenant has no such kind."""
        said = {c for r in rows if r.entity in BEARERS and not r.faults for c in further(r)}
        kind = ctx.schema.kind(KIND)
        if not said or kind is None or not ctx.profile.sees(kind):
            return cls({})
        statement = Statement(
            "SELECT id::text, data FROM record WHERE tenant_id = $1 AND kind = 'barcode' "
            f"AND deleted_at IS NULL AND {slot_of(kind, 'code')} = ANY($2::text[])"
        )
        (answer,) = await db.read(ctx.tenant, (statement, (ctx.tenant, folded(sorted(said)))))
        found = [(text_of(ident), _decode(raw or b"{}")) for ident, raw in answer]
        bearers = {str(d.get("variant") or d.get("product")) for _, d in found}
        brought = await refs.brought({i for b in bearers if (i := parse_uuid(b))})
        return cls({
            fold(str(data.get("code"))): Held(
                ident, str(data.get("product") or ""), str(data.get("variant") or ""),
                parse_uuid(str(data.get("variant") or data.get("product"))) in brought,
            )
            for ident, data in found
        })  # fmt: skip

    def step(self, codes: Sequence[str], entity: str, now: UUID | None) -> tuple[list[Change], int]:
        """What would change for a record that these codes are of, and how many it may not have."""
        gained: dict[str, Json] = {}
        refused = 0
        for code in codes:
            held = self._held.get(fold(code))
            if not _CODE.fullmatch(code):
                refused += 1
            elif held is None:
                gained[code] = None
            elif now is None or str(now) != (held.variant if entity == "variant" else held.product):
                if held.may_move:
                    gained[code] = held.record
                refused += not held.may_move
        return ([Change(FIELD, None, gained)] if gained else []), refused


def further(row: StagedRow) -> list[str]:
    """The codes of a row beside its own, each once."""
    said = dict.fromkeys(str(row.values.get("barcodes") or "").split("\n"))
    own = row.values.get("barcode") or next(iter(said))
    return [code for code in said if code and code != own]


def compose_codes(run: IntakeRun, row: Row, ident: UUID, product: Json) -> list[Command]:
    """The commands that give a record its codes. `product`: of a variant, its product's id."""
    gained = row.after(FIELD)
    found: list[Command] = []
    owner: dict[str, Json] = {"product": str(ident), "variant": None}
    if row.entity == "variant":
        owner = {"product": product, "variant": str(ident)}
    for code, record in gained.items() if isinstance(gained, dict) else ():
        if record is None:
            made = derived_id(run.id, f"barcode:{fold(code)}")
            found.append(create(KIND, made, {"code": code, **owner}))
        else:
            found.append(Command(op=Op.UPDATE, kind=KIND, id=UUID(str(record)), fields=owner))
    return found
