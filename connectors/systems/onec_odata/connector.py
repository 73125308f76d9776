"""The connector: one look at a base of 1C, captured as a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from connectors.formats.captured import Page, is_capture, read_head, read_pages
from connectors.formats.staging import Staging
from connectors.sdk.contract import (
    Fault,
    Found,
    Inspection,
    Mapping,
    Place,
    Progress,
    Refused,
    Rows,
    Summary,
)
from connectors.sdk.manifest import read_manifest
from connectors.systems.onec_odata.look import LOOK, PROFILE, SYSTEM, Look
from connectors.systems.onec_odata.profile import Profile
from connectors.systems.onec_odata.reader import Reader

BLOCK = 1_000


class OneCOData:
    """Captures of 1C's standard OData interface."""

    def open(self, path: Path) -> Captured:
        """See sdk.contract.Connector."""
        return Captured(path)

    def recognises(self, head: bytes, name: str) -> float:
        """See sdk.contract.Recogniser."""
        return 1.0 if is_capture(head, SYSTEM) else 0.0


class Captured:
    """One capture, proved to be whole when it is opened: every line is read once by then."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._about = read_head(path, SYSTEM).about
        profile: Profile | None = None
        look: Look | None = None
        for no, page in read_pages(path):
            if look is not None:
                raise _refused("damaged", "nothing behind the page of the look", page.call, no)
            if profile is None:
                profile = _convert(page, PROFILE, Profile, no)
            elif page.call == LOOK:
                look = _convert(page, LOOK, Look, no)
        if profile is None or look is None:
            raise Refused(Fault("truncated", "a look with its profile and its end", "", Place(row=1)))  # fmt: skip
        self._profile, self._look = profile, look

    def inspect(self, learned: dict[str, str]) -> Found:
        """See sdk.contract.Source. No column is mapped: the constants are the settings."""
        constants = read_manifest(SYSTEM).settings
        facts, warnings = self._facts(), self._warnings()
        found = Inspection(SYSTEM, "utf-8", warnings=warnings, facts=facts)
        return Found(found, Mapping(constants=constants))

    def read(self, mapping: Mapping) -> Iterator[Rows | Progress | Summary]:
        """See sdk.contract.Source."""
        staging = Staging()
        reader = Reader(self._profile, staging, mapping.constants)
        yield Progress(0)
        seen = 0
        for no, page in read_pages(self._path):
            if page.call in (PROFILE, LOOK):
                continue
            for _ in reader.read(page, no):
                if len(staging.rows) >= BLOCK:
                    seen += len(staging.rows)
                    yield staging.take()
                    yield Progress(seen)
        if staging.rows:
            seen += len(staging.rows)
            yield staging.take()
        yield Progress(seen, seen)
        warnings = (*self._warnings(), *staging.warnings())
        yield Summary(dict(staging.entities), {}, (), warnings, self._facts())

    def _facts(self) -> dict[str, str]:
        """`catalogue_full`, `offers_full`: whether what is left out is gone; see goods target."""
        whole = self._look.whole
        return {
            "catalogue_id": self._about.get("base", ""), "profile": self._profile.key,
            "look": self._look.mode, "whole": ", ".join(whole),
            "catalogue_full": "yes" if "product" in whole else "no",
            "offers_full": "yes" if {"product", "variant"} <= set(whole) else "no",
        }  # fmt: skip

    def _warnings(self) -> tuple[Fault, ...]:
        place, look = Place(column=LOOK), self._look
        told = []
        if look.left_out:
            expected = "every entity of the profile; these are left out by setting"
            told.append(Fault("left-out", expected, ", ".join(look.left_out), place))
        if look.restless:
            expected = "a base at rest while it is swept; nothing of these is taken for gone"
            told.append(Fault("restless", expected, ", ".join(look.restless), place))
        if look.own:
            expected = "orders of 1C; those that were written from here are not read back"
            told.append(Fault("own-orders", expected, str(look.own), place))
        return tuple(told)


def _convert(page: Page, call: str, shape: type[Any], no: int) -> Any:
    try:
        if page.call == call:
            return msgspec.json.decode(page.body, type=shape)
        found = page.call
    except (msgspec.DecodeError, ValueError) as error:
        found = str(error)
    raise _refused("damaged", f"the page of the {call}", found, no)


def _refused(code: str, expected: str, found: str, no: int) -> Refused:
    return Refused(Fault(code, expected, found[:100], Place(row=no)))
