"""One question as a route function sees it: who asks, with what body, under which rights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl
from uuid import UUID, uuid5

import msgspec

from appliance.access.session import SessionGuard
from appliance.base.errors import FieldFault, Invalid, Malformed, Refused
from appliance.base.ids import parse_uuid
from appliance.db.wire import Call, Rows
from appliance.http.bodies import convert, read_json
from appliance.http.problems import pointer_of
from appliance.http.visit import Scope, Visit, header
from appliance.kernel.context import Ctx
from appliance.kernel.kind import Json, Kind

if TYPE_CHECKING:
    from appliance.http.node import Node

T = TypeVar("T")
_PARAMS_MAX = 40
_KEYS = UUID("6f1c2a51-6a3e-5a0c-9f5e-1f0f6f6b1d2e")


class Gate:
    """A session guard that remembers whether it was passed."""

    __slots__ = ("_guard", "calls", "passed")

    def __init__(self, guard: SessionGuard) -> None:
        self._guard = guard
        self.calls: Sequence[Call] = guard.calls
        self.passed = False

    def check(self, answers: Sequence[Rows]) -> None:
        """See SessionGuard.check."""
        self._guard.check(answers)
        self.passed = True


class Ask:
    """Everything about one request. `ctx` and `gate` are there on routes that are not public."""

    __slots__ = ("_body", "_params", "ctx", "gate", "most", "names", "node", "scope", "visit")
    ctx: Ctx
    gate: Gate

    def __init__(
        self, node: Node, scope: Scope, visit: Visit, names: dict[str, str], most: int
    ) -> None:
        self.node = node
        self.scope = scope
        self.visit = visit
        self.names = names
        self.most = most
        self._body: Json = None
        self._params: Any = None

    def enter(self, ctx: Ctx, gate: Gate) -> None:
        """Note who asks."""
        self.ctx, self.gate = ctx, gate
        visit = self.visit
        visit.tenant, visit.actor, visit.session = ctx.tenant, ctx.actor, ctx.session

    async def verify(self) -> None:
        """Prove the session in a round trip of its own."""
        self.gate.check(await self.node.db.read(self.ctx.tenant, *self.gate.calls))

    def json(self) -> Json:
        """The body, decoded once."""
        if self._body is None:
            self._body = read_json(self.visit.body, most=self.most)
        return self._body

    def read(self, shape: type[T]) -> T:
        """The body in a declared shape. Raises Malformed, Invalid."""
        return convert(self.json(), shape)

    def read_params(self, shape: type[msgspec.Struct]) -> None:
        """Decode the query string. Raises Malformed, Invalid."""
        try:
            text = self.scope["query_string"].decode("ascii")
            pairs = parse_qsl(
                text, keep_blank_values=True, errors="strict", max_num_fields=_PARAMS_MAX
            )
        except ValueError:
            raise Malformed("The query string cannot be read as UTF-8 pairs.") from None
        given = dict(pairs)
        if len(given) != len(pairs):
            raise Malformed(
                "A parameter stands twice in the query string.", code="request.repeated"
            )
        try:
            self._params = msgspec.convert(given, shape, strict=False)
        except msgspec.ValidationError as bad:
            pointer, detail = pointer_of(str(bad))
            raise Invalid(
                "A parameter of the query string is not one this route takes.",
                code="request.parameter",
                faults=(FieldFault(pointer, "parameter", detail[:200] + "."),),
            ) from None

    def params(self, shape: type[T]) -> T:
        """The decoded query string."""
        assert isinstance(self._params, shape), "declared with the route"
        return self._params

    def header(self, name: str) -> str | None:
        """A request header."""
        return header(self.scope, name.encode())

    def ident(self, name: str = "id") -> UUID:
        """An id from the path; what is no id is unknown. Raises Refused."""
        found = parse_uuid(self.names[name])
        if found is None:
            raise Refused("There is no such thing for you.", code="record.unknown")
        return found

    def kind(self) -> Kind:
        """The kind from the path, if it exists for the reader. Raises Refused."""
        found = self.ctx.schema.kind(self.names["kind"])
        if found is None or not self.ctx.profile.sees(found):
            raise Refused("There is no such kind for you.", code="kind.unknown")
        return found

    def command_id(self) -> UUID | None:
        """The idempotency of the call: the same key of the same person is the same command."""
        key = self.header("idempotency-key")
        if key is None:
            return None
        if not (0 < len(key) <= 255 and key.isascii() and key.isprintable()):
            raise Malformed("Idempotency-Key takes 1 to 255 printable ASCII characters.")
        return uuid5(_KEYS, f"{self.ctx.tenant}/{self.ctx.actor}/{key}")
