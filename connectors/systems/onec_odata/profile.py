"""What a configuration of 1C calls things: which object is which entity, which property which field.

Names differ between configurations, and between versions of one; so they stand in a TOML for each,
and a person may give an own one. A profile travels at the head of every capture, so that a file is
read by the very names it was asked with.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated

import msgspec

from connectors.sdk.manifest import read_vocabulary

SHIPPED = Path(__file__).parent / "profiles"
# In the order of a capture: what is pointed to comes before what points.
LOOKUPS = ("unit", "currency", "tax", "maker")
CATALOGUES = ("category", "price_type", "warehouse", "counterparty", "product", "variant")
REGISTERS = ("price", "stock")
DOCUMENTS = ("order",)
ENTITIES = (*LOOKUPS, *CATALOGUES, *REGISTERS, *DOCUMENTS)
ZERO = "00000000-0000-0000-0000-000000000000"
_NAME = r"[^\W\d][\w]{0,99}"
_Name = Annotated[str, msgspec.Meta(pattern=f"^{_NAME}$")]
_Object = Annotated[str, msgspec.Meta(pattern=rf"^{_NAME}$")]
# What a lookup has besides what the vocabulary says of an entity of that name.
_OF_LOOKUPS = frozenset({"name", "code", "factor", "divisor"})
_MORE = {
    "product": frozenset({"unit", "tax", "maker", "brand", "country"}),
    "variant": frozenset({"owner", "owner_type"}),
    "counterparty": frozenset({"contacts"}),
    "price": frozenset({"package"}),
    "order_line": frozenset({"package", "number"}),
}


class Map(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True
):
    """One entity. `fields`: ours by the property of 1C. `refs`: fields whose property is the id of
    something that is told by its words, by the lookup that has it. `filter`: what is left out
    always. `slice`: how a register is asked (`SliceLast`, `Balance(Dimensions='…')`). `keys`: the
    properties that tell its rows apart. `lines`, `line_fields`, `line_refs`: the tabular part of a
    document. `page`: rows of an answer. `is_sorted`: false where 1C refuses to sort a virtual table;
    that nothing is missing is proved by counting in any case.
    """

    object: _Object
    fields: dict[str, _Name] = {}
    refs: dict[str, str] = {}
    filter: str = ""
    slice: str = ""
    keys: tuple[_Name, ...] = ()
    lines: str = ""
    line_fields: dict[str, _Name] = {}
    line_refs: dict[str, str] = {}
    page: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1_000
    is_sorted: bool = True

    @property
    def path(self) -> str:
        """What is asked for."""
        return f"{self.object}/{self.slice}" if self.slice else self.object

    @property
    def properties(self) -> tuple[str, ...]:
        """Every property that is asked for, each once; what tells rows apart comes first."""
        own = self.keys or ("Ref_Key", "DataVersion", "DeletionMark")
        lines = (self.lines,) if self.lines else ()
        return tuple(dict.fromkeys((*own, *self.fields.values(), *lines)))


class OrdersOut(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True
):
    """How an order of ours is written. Fields of an order: number, date, buyer, currency, amount,
    comment; of a line: product, variant, quantity, price, amount. `of_buyer`: properties of the
    document that are copied from its counterparty.
    """

    object: _Object
    fields: dict[str, _Name]
    lines: _Name
    line_fields: dict[str, _Name]
    buyers: _Object
    currencies: _Object
    of_buyer: dict[_Name, _Name] = {}


class Profile(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True
):
    """One configuration. `persons`: words of a counterparty's sort that mean a person."""

    key: Annotated[str, msgspec.Meta(pattern="^[a-z0-9_]{1,40}$")]
    label: str
    entity: dict[str, Map]
    orders: OrdersOut | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for what no capture could be read by."""
        goods = read_vocabulary("goods")
        for name, map_ in self.entity.items():
            if name not in ENTITIES:
                raise ValueError(f"entity {name} is none of {', '.join(ENTITIES)}")
            if (name in REGISTERS) != bool(map_.keys):
                raise ValueError(f"{name}: registers have keys, what has a Ref_Key has none")
            known = _OF_LOOKUPS if name in LOOKUPS else frozenset(goods[name].fields)
            _check(name, {*map_.fields, *map_.refs}, known | _MORE.get(name, frozenset()))
            if name == "order":
                lines = frozenset(goods["order_line"].fields) | _MORE["order_line"]
                _check("order_line", {*map_.line_fields, *map_.line_refs}, lines)
            for lookup in {*map_.refs.values(), *map_.line_refs.values()}:
                if lookup not in LOOKUPS:
                    raise ValueError(f"{name}: {lookup} is none of {', '.join(LOOKUPS)}")

    def without(self, left_out: tuple[str, ...]) -> Profile:
        """The profile as far as a look asks for it. Raises ValueError for what it does not have."""
        if unknown := sorted(set(left_out) - set(self.entity)):
            raise ValueError(f"there is no entity {', '.join(unknown)} to leave out")
        kept = {n: self.entity[n] for n in ENTITIES if n in self.entity and n not in left_out}
        return msgspec.structs.replace(self, entity=kept, orders=None)


def read_profile(named: str) -> Profile:
    """A profile by its key, or by the path of a person's own. Raises ValueError saying what is
    wrong in it.
    """
    path = SHIPPED / f"{named}.toml" if re.fullmatch("[a-z0-9_]+", named) else Path(named)
    try:
        return msgspec.convert(tomllib.loads(path.read_text("utf-8")), Profile)
    except (OSError, ValueError) as error:
        listed = ", ".join(sorted(p.stem for p in SHIPPED.glob("*.toml")))
        raise ValueError(f"the profile {named}: {error}; there are {listed}") from None


def _check(name: str, fields: set[str], known: frozenset[str]) -> None:
    if unknown := sorted(fields - known):
        raise ValueError(f"{name} has no field {', '.join(unknown)}")
