"""Which of the tenant's bank accounts a statement is of.

By its number (blanks aside) and, where several bear it, by currency. A setting of the mapping may
name ours (`account:<number>` = its number, name or id), or ask for a new one (`create`): nothing is
posted to an account that nobody knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

import msgspec

from appliance.base.ids import parse_uuid
from appliance.db.database import Database
from appliance.db.wire import Statement
from appliance.intake.ids import derived_id
from appliance.intake.refs import kind_of
from appliance.intake.runs import IntakeRun
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Json

CREATE = "create"
_ACCOUNTS = Statement(
    "SELECT id::text, data, unit_id::text FROM record WHERE tenant_id = $1 "
    "AND kind = 'bank_account' AND deleted_at IS NULL ORDER BY id"
)
_decode = msgspec.json.Decoder(dict[str, Json]).decode


class Account(msgspec.Struct, frozen=True):
    """One account of ours. `is_new`: this run makes it; its currency is that of its statement."""

    id: UUID
    number: str
    currency: str
    unit: UUID | None = None
    is_new: bool = False


class Accounts:
    """The accounts of a tenant, as one run sees them."""

    def __init__(
        self, run: IntakeRun, known: list[tuple[Account, str]], settings: Mapping[str, str]
    ) -> None:
        self._run, self._settings = run, settings
        self._by_number: dict[str, list[Account]] = {}
        self._by_name: dict[str, Account] = {}
        for account, name in known:
            if account.id == derived_id(run.id, f"account:{account.number}"):
                continue  # Made by this run before it was interrupted: it is made again, once.
            self._by_number.setdefault(account.number, []).append(account)
            for word in (str(account.id), account.number, name.strip().upper()):
                self._by_name.setdefault(word, account)

    @classmethod
    async def read(cls, db: Database, ctx: Ctx, run: IntakeRun) -> Accounts:
        """Raises Invalid when the tenant keeps no bank accounts."""
        kind = kind_of(ctx, "bank_account")
        fids = {n: kind.by_name[n].fid for n in ("account", "currency", "name")}
        (rows,) = await db.read(ctx.tenant, (_ACCOUNTS, (ctx.tenant,)))
        known = []
        for ident, raw, unit in rows:
            data = _decode(raw or b"{}")
            number, currency, name = (str(data.get(f) or "") for f in fids.values())
            account = Account(
                UUID((ident or b"").decode()), plain(number), currency,
                parse_uuid((unit or b"").decode()),
            )  # fmt: skip
            known.append((account, name))
        return cls(run, known, run.mapping.constants if run.mapping else {})

    def find(self, number: str, currency: str) -> Account | None:
        """The account that is meant; None when nobody knows it."""
        own = plain(number)
        if found := self._by_number.get(own):
            return next((a for a in found if a.currency == currency), found[0])
        told = self._told(own)
        if told == CREATE:
            return Account(derived_id(self._run.id, f"account:{own}"), own, currency, is_new=True)
        return self._by_name.get(told.strip().upper()) or self._by_name.get(told) if told else None

    def _told(self, own: str) -> str:
        names = (n for n in self._settings if n.startswith("account:"))
        return next((self._settings[n] for n in names if plain(n[8:]) == own), "")


def plain(number: str) -> str:
    """A number as it is compared: no blanks, capital letters."""
    return "".join(number.split()).upper()
