"""Orders of a node as documents of a base: written once, posted apart, found again by their id.

The document gets the id of the order, so an answer that was lost is read back, never written twice.
What somebody has changed in 1C since is never written over. Posting is a second question: where it
is refused the document stays unposted, and only posting is tried again.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from connectors.onec.client import Base, guid
from connectors.onec.due import Line, Order
from connectors.onec.memory import Memory
from connectors.onec.place import OrdersWay
from connectors.sdk.retry import Trouble
from connectors.systems.onec_odata.profile import ZERO, OrdersOut

CANCELLED = "cancelled"
# ISO 4217: 1C keeps a currency by its number, and by a name that people give it.
_NUMBERS = {
    "UAH": "980", "RUB": "643", "USD": "840", "EUR": "978", "KZT": "398", "BYN": "933",
    "PLN": "985", "GBP": "826", "CZK": "203", "RON": "946", "MDL": "498", "UZS": "860",
    "GEL": "981", "AMD": "051", "AZN": "944", "KGS": "417", "TRY": "949", "CNY": "156",
}  # fmt: skip
_OTHER_ID = "other-id"
_STATE = ("Ref_Key", "DataVersion", "DeletionMark", "Posted")
_encode = msgspec.json.Encoder(decimal_format="number").encode


class _Made(msgspec.Struct, frozen=True):
    key: str = msgspec.field(name="Ref_Key")


class Writer:
    """Writes orders into one base. It blocks; all raise Trouble."""

    def __init__(self, base: Base, memory: Memory, out: OrdersOut, way: OrdersWay) -> None:
        self._base, self._memory, self._out, self._way = base, memory, out, way
        self._currencies: dict[str, str] = {}

    def write(self, order: Order) -> str:
        """What was done: `written`, `cancelled`, `nothing`. Raises Trouble."""
        if order.external_id:
            # It came from there: 1C keeps its own orders.
            return "nothing"
        known = self._memory.sent(order.id)
        held = self._find(order)
        if order.state == CANCELLED:
            return self._cancel(order, held, known)
        is_new = known is None or known[0] != order.version
        if is_new or held is None or not known or known[2] == "sending":
            held = self._bring(order, held, known)
        if self._way.is_posted and (is_new or not held.get("Posted") or known is None
                                    or known[2] != "done"):  # fmt: skip
            held = self._post(order)
        self._memory.note_sent(order.id, order.version, _version(held), "done")
        return "written"

    def _find(self, order: Order) -> dict[str, Any] | None:
        wanted = (*_STATE, *self._out.fields.values(), *self._way.constants, self._out.lines)
        return self._base.one(self._out.object, order.id, tuple(dict.fromkeys(wanted)))

    def _bring(
        self, order: Order, held: dict[str, Any] | None, known: tuple[str, str, str] | None
    ) -> dict[str, Any]:
        """The document as the order is now."""
        body = self._compose(order)
        if held is None and known is not None and known[2] != "sending":
            text = f"{self._named(order)} was written, and is not there any more"
            raise Trouble("vanished-there", text, is_permanent=True)
        if held is not None and _is_same(held, body):
            return held
        if held is not None and (known is None or (known[1] and known[1] != _version(held))):
            text = f"{self._named(order)} was changed in 1C since; it is not written over"
            raise Trouble("changed-there", text, is_permanent=True)
        if held is None and (other := self._memory.mark(_OTHER_ID)):
            raise _other_id(other)
        # Noted before: whoever dies now knows that a document of this id is our own.
        before = _version(held) if held is not None else ""
        self._memory.note_sent(order.id, order.version, before, "sending")
        try:
            if held is None:
                answer = self._send("POST", self._out.object, {"Ref_Key": order.id, **body})
                self._check_id(order, answer)
            else:
                path = f"{self._out.object}({guid(order.id)})"
                self._send("PATCH", path, body, {"If-Match": _version(held)})
        except Trouble as trouble:
            if trouble.code != "outcome-unknown":
                raise
        found = self._find(order)
        if found is None or (held is not None and _version(found) == before):
            text = f"{self._named(order)}: the answer was lost and nothing is there; tried again"
            raise Trouble("not-confirmed", text)
        self._memory.note_sent(order.id, order.version, _version(found), "written")
        return found

    def _post(self, order: Order) -> dict[str, Any]:
        """Posted; what was posted already is posted anew."""
        path = f"{self._out.object}({guid(order.id)})/Post"
        self._act(path)
        found = self._find(order)
        if found is None or found.get("Posted") is not True:
            text = f"{self._named(order)}: 1C says that it was posted, and it is not"
            raise Trouble("not-confirmed", text)
        return found

    def _cancel(
        self, order: Order, held: dict[str, Any] | None, known: tuple[str, str, str] | None
    ) -> str:
        if held is None:
            return "nothing"
        if not held.get("DeletionMark"):
            if known is not None and known[1] and known[1] != _version(held):
                text = f"{self._named(order)} is cancelled here and was changed in 1C since"
                raise Trouble("changed-there", text, is_permanent=True)
            if held.get("Posted"):
                self._act(f"{self._out.object}({guid(order.id)})/Unpost")
            held = self._find(order) or held
            path = f"{self._out.object}({guid(order.id)})"
            self._send("PATCH", path, {"DeletionMark": True}, {"If-Match": _version(held)})
            held = self._find(order) or held
        self._memory.note_sent(order.id, order.version, _version(held), "done")
        return "cancelled"

    def _act(self, path: str) -> None:
        params = {"$format": "json"}
        if path.endswith("/Post"):
            params = {"PostingModeOperational": "false", **params}
        self._base.ask(path, params, lambda _: None, method="POST", body=b"")

    def _send(
        self, method: str, path: str, body: dict[str, Any], headers: dict[str, str] | None = None
    ) -> bytes:
        answer: bytes = self._base.ask(
            path, {"$format": "json"}, lambda a: a.body, method=method, body=_encode(body),
            headers=headers or {}, is_repeatable=False,
        )  # fmt: skip
        return answer

    def _check_id(self, order: Order, answer: bytes) -> None:
        """A base that gives ids of its own cannot be read back from: it gets no other document."""
        try:
            key = msgspec.json.decode(answer, type=_Made).key
        except (msgspec.DecodeError, UnicodeDecodeError):
            # It is read back in any case.
            return
        if key.lower() != order.id:
            self._memory.set_mark(_OTHER_ID, key)
            raise _other_id(key)

    def _compose(self, order: Order) -> dict[str, Any]:
        """The document of an order. Raises Trouble naming what 1C does not know."""
        unknown = [line.sku or line.name for line in order.lines if not line.external_id]
        if unknown:
            text = f"{self._named(order)}: 1C does not know {', '.join(unknown[:5])}"
            raise Trouble("unknown-product", text, is_permanent=True)
        buyer = self._buyer(order)
        at = order.at.astimezone(ZoneInfo(self._way.zone)).replace(tzinfo=None, microsecond=0)
        told: dict[str, Any] = {
            "number": order.number, "date": at.isoformat(), "buyer": buyer, "amount": order.amount,
            "comment": self._comment(order),
        }  # fmt: skip
        if "currency" in self._out.fields:
            told["currency"] = self._currency(order.currency)
        body: dict[str, Any] = dict(self._way.constants)
        body |= {name: told[ours] for ours, name in self._out.fields.items()}
        body |= self._copied(buyer)
        body[self._out.lines] = [self._line(n, line) for n, line in enumerate(order.lines, 1)]
        return body

    def _line(self, number: int, line: Line) -> dict[str, Any]:
        product, _, variant = str(line.external_id).partition("#")
        if variant and "variant" not in self._out.line_fields:
            text = f"the profile has no variants of lines, and {line.sku or line.name} is one"
            raise Trouble("profile-differs", text, is_permanent=True)
        for key in (product, variant or ZERO):
            guid(key)
        told = {
            "product": product, "variant": variant or ZERO, "quantity": line.quantity,
            "price": line.price, "amount": line.amount,
        }  # fmt: skip
        fields = {name: told[ours] for ours, name in self._out.line_fields.items()}
        return {"LineNumber": str(number), **fields}

    def _buyer(self, order: Order) -> str:
        known = order.buyer.external_id if order.buyer else None
        if found := known or self._way.buyer:
            return found
        text = f"{self._named(order)}: 1C does not know its buyer; give orders.buyer, or bring it"
        raise Trouble("unknown-buyer", text, is_permanent=True)

    def _comment(self, order: Order) -> str:
        """Whose it is, where 1C knows them only as somebody."""
        is_known = order.buyer is not None and order.buyer.external_id
        who = "" if is_known or order.buyer is None else "; ".join(order.buyer.fields.values())
        return "; ".join(t for t in (order.number, who, order.delivery) if t)[:1_000]

    def _copied(self, buyer: str) -> dict[str, Any]:
        if not self._out.of_buyer:
            return {}
        select = ("Ref_Key", *self._out.of_buyer.values())
        held = self._base.one(self._out.buyers, buyer, select)
        if held is None:
            text = f"the counterparty {buyer} is not in 1C"
            raise Trouble("unknown-buyer", text, is_permanent=True)
        return {ours: held.get(theirs) for ours, theirs in self._out.of_buyer.items()}

    def _currency(self, code: str) -> str:
        if code not in self._currencies:
            words = [f"Description eq '{code}'"]
            if number := _NUMBERS.get(code):
                words.append(f"Code eq '{number}'")
            feed = self._base.rows(self._out.currencies, ("Ref_Key",), filter_=" or ".join(words))
            if not feed.value:
                text = f"there is no currency {code} in 1C, by its name or its number"
                raise Trouble("unknown-currency", text, is_permanent=True)
            self._currencies[code] = str(msgspec.json.decode(feed.value[0])["Ref_Key"])
        return self._currencies[code]

    def _named(self, order: Order) -> str:
        return f"order {order.number or order.id}"


def _other_id(key: str) -> Trouble:
    text = (
        f"1C gave a document an id of its own ({key}) in place of the order's; look at it there. "
        "Orders are not written into this base, because an answer that is lost would double them"
    )
    return Trouble("id-not-kept", text, is_permanent=True)


def _version(held: dict[str, Any]) -> str:
    return str(held.get("DataVersion") or "")


def _is_same(held: dict[str, Any], body: dict[str, Any]) -> bool:
    """Whether a document says what the order says, whatever else it has."""
    return all(_equals(held.get(name), value) for name, value in body.items() if name in held)


def _equals(held: Any, value: Any) -> bool:
    if isinstance(value, list):
        return (
            isinstance(held, list) and len(held) == len(value)
            and all(_is_same(h, v) for h, v in zip(held, value, strict=True))
        )  # fmt: skip
    if isinstance(value, Decimal) and isinstance(held, int | float | Decimal | str):
        return Decimal(str(held)) == value
    return bool(held == value)
