"""What statements of every format share: keys, the sum of lines, and whether it all ties.

A statement streams: its lines are staged as they come, its own row follows them and says what was
declared and what was summed. Completeness is arithmetic: opening + net = closing, or the statement
is held whole (research/connectors 0.2, 14 rows 25-35). A key never depends on a place in a file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from collections.abc import Mapping as MappingOf
from decimal import Decimal, InvalidOperation
from hashlib import blake2b

from connectors.formats.lines import find_control
from connectors.sdk.contract import Fault, Place, Progress, Rows, StagedRow, Summary, Value

BLOCK = 1_000
TOLD_MAX = 1_000
REMEMBERED_MAX = 100_000
ZERO = Decimal(0)


def plain(amount: Decimal) -> str:
    """A decimal as the contract wants it."""
    return format(amount, "f")


def fingerprint(*parts: str) -> str:
    """A key of content: the same content gives the same key wherever it stands."""
    return blake2b("\x1f".join(parts).encode(errors="replace"), digest_size=16).hexdigest()


def key_line(values: MappingOf[str, Value], amount: Decimal, reference: str | None = None) -> str:
    """The fingerprint of a bank line: account, value date, signed amount, currency, reference,
    counterparty's account and text, blanks and letter case aside. Equal payments have equal keys:
    whoever posts them counts. `reference`: what to take for it where the bank's own is no identity.
    """
    get = values.get
    if reference is None:
        own = get("bank_reference") or get("end_to_end") or get("reference") or get("number")
        reference = str(own or "")
    text = f"{get('purpose') or ''} {get('counterparty') or ''}"
    return fingerprint(
        str(get("account")),
        str(get("value_date") or get("booked")),
        str(amount.normalize()),
        str(get("currency")),
        reference,
        str(get("counterparty_account") or ""),
        " ".join(text.split()).casefold(),
    )


class Statement:
    """One statement while its lines stream by. `values` may be added to until it is closed."""

    def __init__(self, key: str, account: str, currency: str, place: Place) -> None:
        self.key, self.account, self.currency, self.place = key, account, currency, place
        self.values: dict[str, Value] = {}
        self.opening: Decimal | None = None
        self.closing: Decimal | None = None
        self.net, self.lines = ZERO, 0
        self.faults: list[Fault] = []
        self.is_provisional = False
        self.may_tie = True

    def begin_line(self) -> dict[str, Value]:
        """What each line of it says."""
        found: dict[str, Value] = {
            "statement": self.key,
            "account": self.account,
            "currency": self.currency,
        }
        if self.is_provisional:
            found["is_provisional"] = True
        return found


class Desk:
    """Where the rows of one reading meet: blocks of rows, counts, totals, holds, warnings."""

    def __init__(self, *, has_controls: bool = False) -> None:
        self.block: list[StagedRow] = []
        self.rows = 0
        self.holds: list[Fault] = []
        self.warnings: list[Fault] = []
        self._entities: Counter[str] = Counter()
        self._totals: dict[str, Decimal] = {}
        self._keys: set[str] = set()
        self._closings: dict[tuple[str, str], Decimal] = {}
        self.has_controls = has_controls
        self._told: Counter[str] = Counter()

    def open(self, key: str, account: str, currency: str, place: Place) -> Statement:
        """A statement begins. One that comes again in the same input is held: posting it twice
        would count its lines twice.
        """
        if key in self._keys:
            fault = Fault("duplicate-statement", "each statement once", account, place)
            key = f"{key}-{place.row or place.offset}"
            self.hold(fault, key)
        elif len(self._keys) < REMEMBERED_MAX:
            self._keys.add(key)
        return Statement(key, account, currency, place)

    def add_line(
        self,
        statement: Statement,
        place: Place,
        values: dict[str, Value],
        amount: Decimal | None,
        faults: tuple[Fault, ...] = (),
        *,
        is_booked: bool = True,
        reference: str | None = None,
    ) -> None:
        """Stage a line. `amount` None: it could not be read; an unbooked one moves no balance.
        `reference` as in key_line.
        """
        if self.has_controls and any(
            isinstance(v, str) and find_control(v) for v in values.values()
        ):
            faults += (Fault("control-character", "printable text", "a control character", place),)
        is_sound = not faults
        if is_sound and not (statement.account and statement.currency):
            # A person names it for the whole of it; until then the balances prove the lines.
            what = "account" if not statement.account else "currency"
            faults += (Fault(f"missing-{what}", f"the {what} of the statement", "none", place),)
        key = ""
        if amount is not None:
            values["amount"] = format(amount, "f")
            key = key_line(values, amount, reference)
            if is_booked and is_sound:
                statement.net += amount
                statement.lines += 1
                name = ("in " if amount >= 0 else "out ") + statement.currency
                totals = self._totals
                totals[name] = totals.get(name, ZERO) + amount
        self._entities["bank_line"] += 1
        self.block.append(StagedRow(place, "bank_line", key, values, (), faults))
        self.rows += 1

    def close(self, statement: Statement, *, wants_balances: bool) -> None:
        """Stage the statement's own row; hold it unless it is proved."""
        values, opening, closing = statement.values, statement.opening, statement.closing
        values |= {"account": statement.account, "currency": statement.currency}
        values |= {"lines": str(statement.lines), "net": plain(statement.net)}
        if statement.is_provisional:
            values["is_provisional"] = True
        if opening is not None:
            values["opening"] = plain(opening)
        if closing is not None:
            values["closing"] = plain(closing)
        if opening is not None and closing is not None and statement.may_tie:
            values["ties"] = self._tie(statement, opening, closing)
        elif wants_balances and not statement.is_provisional:
            missing = "opening" if opening is None else "closing"
            fault = Fault("balance-missing", f"the {missing} balance", "none", statement.place)
            self.hold(fault, statement.key)
        faults = list(statement.faults)
        for what in ("account", "currency"):
            if not values[what]:
                place = statement.place
                faults.append(Fault(f"missing-{what}", f"the {what} of it", "none", place))
        self._entities["statement"] += 1
        kept: dict[str, Value] = {k: v for k, v in values.items() if v not in ("", None)}
        self.block.append(
            StagedRow(statement.place, "statement", statement.key, kept, (), tuple(faults))
        )
        self.rows += 1

    def _tie(self, statement: Statement, opening: Decimal, closing: Decimal) -> bool:
        difference = closing - opening - statement.net
        if difference:
            found = (
                f"opening {plain(opening)}, sum {plain(statement.net)}, closing {plain(closing)}, "
                f"difference {plain(difference)} {statement.currency}"
            )
            expected = "opening + sum = closing"
            self.hold(Fault("balance-mismatch", expected, found, statement.place), statement.key)
        owner = (statement.account, statement.currency)
        before = self._closings.get(owner)
        if before is not None and before != opening:
            found = f"{plain(before)} before, {plain(opening)} here"
            expected = f"the closing balance before, of {statement.account}"
            self.warn(Fault("balance-gap", expected, found, statement.place))
        if owner in self._closings or len(self._closings) < REMEMBERED_MAX:
            self._closings[owner] = closing
        return not difference

    def hold(self, fault: Fault, key: str) -> None:
        """Why a statement may not be posted before a person has looked: `key` is the column."""
        self._told["hold"] += 1
        if self._told["hold"] == TOLD_MAX:
            fault = Fault("too-many-holds", f"fewer than {TOLD_MAX}", "", Place(column="*"))
            self.holds.append(fault)
        elif self._told["hold"] < TOLD_MAX:
            place = Place(fault.place.sheet, fault.place.row, key, fault.place.offset)
            self.holds.append(Fault(fault.code, fault.expected, fault.found, place))

    def warn(self, fault: Fault) -> None:
        """What is only told, each code at most TOLD_MAX times."""
        self._told[fault.code] += 1
        if self._told[fault.code] <= TOLD_MAX:
            self.warnings.append(fault)

    def flush(self, *, every: int = BLOCK, total: int = 0) -> Iterator[Rows | Progress]:
        """The rows so far, when there are `every` of them."""
        if len(self.block) >= every:
            yield Rows(tuple(self.block))
            self.block.clear()
            yield Progress(self.rows, max(total, self.rows))

    def count(self, entity: str) -> int:
        """How many rows of an entity were staged."""
        return self._entities[entity]

    def summary(self, facts: dict[str, str] | None = None) -> Summary:
        """What the whole input shows."""
        totals: dict[str, Decimal] = dict(sorted(self._totals.items()))
        for name, amount in list(totals.items()):
            net = f"net {name.split(' ', 1)[1]}"
            totals[net] = totals.get(net, ZERO) + amount
        return Summary(
            dict(self._entities),
            {name: plain(amount) for name, amount in totals.items()},
            tuple(self.holds),
            tuple(self.warnings),
            facts or {},
        )


def parse_amount(text: str) -> Decimal | None:
    """A decimal of ASCII digits with '.' or ',' and an optional sign; None when it is not one.

    Exponents, NaN, hexadecimal and digits of other scripts are none.
    """
    if not text.isascii() or len(text) > 30:
        return None
    text = text.strip().replace(",", ".")
    if not text.lstrip("+-").replace(".", "", 1).isdigit():
        return None
    try:
        return Decimal(text)
    except InvalidOperation:
        return None
