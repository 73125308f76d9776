"""Statements as they are proved: what a file says of one, and which ones are here."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from uuid import UUID

import msgspec

from appliance.base.ids import parse_uuid
from appliance.db.columns import Column
from appliance.db.database import Database
from appliance.db.wire import Statement as Sql
from appliance.intake.refs import folded, kind_of, slot_of
from appliance.intake.targets.bank.accounts import Account
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Json
from connectors.sdk.contract import StagedRow

_decode = msgspec.json.Decoder(dict[str, Json]).decode


class Told(msgspec.Struct, frozen=True):
    """A statement of the file. Days in ISO form, empty when the file does not say."""

    key: str
    account: Account
    first: str
    last: str
    opening: Decimal | None
    closing: Decimal | None
    ties: bool | None
    is_provisional: bool


class Stored(msgspec.Struct, frozen=True):
    """A statement that is here."""

    id: UUID
    account: UUID | None
    last: str
    closing: Decimal | None


def statement_of(row: StagedRow, account: Account) -> Told:
    """What a row says that has to be proved."""
    values = row.values
    first = str(values.get("from") or values.get("opening_date") or "")
    last = str(values.get("to") or values.get("closing_date") or first)
    ties = values.get("ties")
    return Told(
        row.key, account, first or last, last, _decimal(values.get("opening")),
        _decimal(values.get("closing")), ties if isinstance(ties, bool) else None,
        values.get("is_provisional") is True,
    )  # fmt: skip


async def read_stored(db: Database, ctx: Ctx, keys: Sequence[str]) -> dict[str, Stored]:
    """Statements that are here, by the key they have at their source."""
    if not keys:
        return {}
    slot = slot_of(kind_of(ctx, "bank_statement"), "source_key")
    found = await _read(db, ctx, f"{slot} = ANY($2::text[])", folded(keys))
    return {key: stored for key, stored in found if key in set(keys)}


async def read_latest(db: Database, ctx: Ctx, accounts: Sequence[UUID]) -> dict[UUID, list[Stored]]:
    """Booked statements with a closing balance by account, the latest first."""
    if not accounts:
        return {}
    slot = slot_of(kind_of(ctx, "bank_statement"), "account")
    found = await _read(db, ctx, f"{slot} = ANY($2::uuid[])", Column("uuid", sorted(accounts)))
    latest: dict[UUID, list[Stored]] = {}
    for _, stored in found:
        if stored.account is not None and stored.closing is not None and stored.last:
            latest.setdefault(stored.account, []).append(stored)
    for statements in latest.values():
        statements.sort(key=lambda s: (s.last, s.id), reverse=True)
    return latest


async def _read(db: Database, ctx: Ctx, where: str, wanted: Column) -> list[tuple[str, Stored]]:
    statement = Sql(
        "SELECT id::text, data FROM record WHERE tenant_id = $1 AND kind = 'bank_statement' "
        f"AND deleted_at IS NULL AND {where}"
    )
    (rows,) = await db.read(ctx.tenant, (statement, (ctx.tenant, wanted)))
    found = []
    for ident, raw in rows:
        data = _decode(raw or b"{}")
        closing = None if data.get("provisional") is True else _decimal(data.get("closing"))
        stored = Stored(
            UUID((ident or b"").decode()), parse_uuid(data.get("account")),
            str(data.get("period_to") or ""), closing,
        )  # fmt: skip
        found.append((str(data.get("source_key")), stored))
    return found


def _decimal(value: object) -> Decimal | None:
    return Decimal(str(value)) if value not in (None, "") else None
