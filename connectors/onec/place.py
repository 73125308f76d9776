"""A base of 1C as a source: where it is, what is asked of it, and the open way there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import msgspec

from connectors.onec.client import Base
from connectors.onec.looks import Looks, Windows
from connectors.onec.memory import Memory
from connectors.sdk.retry import Trouble
from connectors.systems.onec_odata.profile import Profile, read_profile
from connectors.transports.capture import Capture
from connectors.transports.contract import Listing
from connectors.transports.web import read_pairs


class OrdersWay(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How orders are written. `constants`: properties that every document gets (Организация_Key,
    Склад_Key, Статус); `buyer`: the counterparty of orders whose customer 1C does not know;
    `is_posted`: whether they are posted as well; `zone`: of the base, whose dates are local;
    `every_s`: how often the node is asked.
    """

    constants: dict[str, str | bool | int] = {}
    buyer: str = ""
    is_posted: bool = True
    zone: str = "UTC"
    every_s: Annotated[float, msgspec.Meta(ge=1)] = 60.0

    def __post_init__(self) -> None:
        """Raises ValueError for a zone that is none."""
        try:
            ZoneInfo(self.zone)
        except (KeyError, OSError, ValueError):
            raise ValueError(f"{self.zone} is no zone like Europe/Kyiv") from None


class OneCPlace(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="onec_odata", kw_only=True
):
    """`base`: the address of the publication, `http://server/trade`. `secrets_file`: lines
    `name = …` and `password = …` of a user of 1C. `profile`: a shipped one by its key, or a file.
    `memory_file`: where what was seen is kept. `leave_out`: entities that are not asked for.
    `allowed`: one's own networks or hosts that are meant; without them neither a private address
    nor plain http is asked.
    """

    base: str
    secrets_file: str
    memory_file: str
    profile: str = "trade11"
    leave_out: tuple[str, ...] = ()
    windows: Windows = Windows()
    allowed: tuple[str, ...] = ()
    ca_file: str = ""
    orders: OrdersWay | None = None


class OneC(Capture):
    """See transports.contract.Transport. A look without news is none: there is no file of it."""

    def __init__(self, looks: Looks, known: dict[str, str]) -> None:
        super().__init__(looks, known)
        self._looks = looks

    def entries(self) -> Listing:
        """One file, if there is anything to tell."""
        if self._looks.has_news():
            return super().entries()
        self._looks.marks()
        return Listing(())


def open_base(place: OneCPlace) -> Base:
    """The base of a place. Raises Trouble, OSError."""
    said = read_pairs(Path(place.secrets_file), "=")
    name, password = said.get("name", ""), said.get("password", "")
    if not name:
        text = f"{Path(place.secrets_file).name} has no line: name = …"
        raise Trouble("secrets-missing", text, is_permanent=True)
    return Base(place.base, name, password, allowed=place.allowed, ca_file=place.ca_file)


def profile_of(place: OneCPlace) -> Profile:
    """The profile of a place. Raises Trouble."""
    try:
        profile = read_profile(place.profile)
        profile.without(place.leave_out)
    except ValueError as error:
        raise Trouble("profile-unreadable", str(error)[:300], is_permanent=True) from None
    return profile


def open_place(place: OneCPlace, known: dict[str, str]) -> OneC:
    """See transports.places. Raises Trouble, OSError."""
    profile = profile_of(place)
    base = open_base(place)
    try:
        memory = Memory(Path(place.memory_file))
    except Trouble:
        base.close()
        raise
    parts = urlsplit(place.base)
    looks = Looks(
        base, memory, profile, name=f"{parts.hostname}{parts.path}".rstrip("/"),
        left_out=place.leave_out, windows=place.windows,
    )  # fmt: skip
    return OneC(looks, known)
