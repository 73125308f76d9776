"""A base of 1C over its standard OData interface (version 3), in one session on one connection.

Each session takes a seat of the licence, so it is begun and ended by word, also after a failure. A
refusal of 1C comes as HTTP 500 with its reason in JSON: that is for good, and told in its words.
"""

from __future__ import annotations

import contextlib
import re
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import msgspec

from connectors.sdk.retry import Policy, Trouble
from connectors.transports.api import POLICY, Answer, Api, Question, read_json
from connectors.transports.rates import Bucket, Rate

# Longer addresses are cut by servers on the way (research/connectors 5).
URL_MAX = 1_900
BATCH = 20
_PATH = "/odata/standard.odata"
_METADATA = "$metadata"
_SAFE = "$(),'=:*/"
_CALM = Rate(per_s=20.0, burst=20)
_GUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_SAID_MAX = 250
_decode_row = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal).decode
# What 1C says when somebody else holds or has changed the object: another try may do.
_BUSY = ("блокиров", "блокув", "lock", "конфликт", "конфлікт")
_LOST = ("сеанс", "session")
_SEATS = ("лицензи", "ліценз", "license", "licence")


class _Words(msgspec.Struct, frozen=True):
    value: str = ""


class _Error(msgspec.Struct, frozen=True):
    code: str = ""
    message: _Words = _Words()


class _Refusal(msgspec.Struct, frozen=True):
    error: _Error = msgspec.field(name="odata.error")


class Feed(msgspec.Struct, frozen=True):
    """Rows of an answer as they came; `count`: how many there are beyond this page, where told."""

    value: list[msgspec.Raw]
    count: int | str | None = msgspec.field(default=None, name="odata.count")


class Base:
    """One base. It blocks; all raise Trouble."""

    def __init__(
        self, base: str, name: str, password: str, *, allowed: tuple[str, ...] = (),
        ca_file: str = "", policy: Policy = POLICY, rate: Rate = _CALM,
    ) -> None:  # fmt: skip
        coded = b64encode(f"{name}:{password}".encode()).decode()
        self._api = Api(
            base.rstrip("/") + _PATH, account=f"onec {base}", rates={"": rate}, policy=policy,
            headers={"Authorization": f"Basic {coded}"}, allowed=allowed, ca_file=ca_file,
            learn=self._learn,
        )  # fmt: skip
        self._is_begun = self._is_ending = False

    def close(self) -> None:
        """Give the seat back; never raises."""
        if self._is_begun:
            # One try: a server that does not answer ends the session by itself.
            self._is_ending = True
            with contextlib.suppress(Trouble, OSError):
                path = "/" + _query({"$format": "json"})
                headers = {"IBSession": "finish"}
                question = Question(path=path, headers=headers, is_repeatable=False)
                self._api.ask(question, lambda _: None)
        self._api.close()

    def ask(
        self, path: str, params: dict[str, str], read: Callable[[Answer], Any], **more: Any
    ) -> Any:
        """One question under the base's session. `more`: see transports.api.Question."""
        headers = dict(more.pop("headers", {}))
        if not self._is_begun:
            headers["IBSession"] = "start"
        address = "/" + quote(path, safe=_SAFE) + _query(params)
        try:
            return self._api.ask(Question(path=address, headers=headers, **more), read)
        except Trouble as trouble:
            raise _explained(trouble, path) from None

    def rows(
        self, path: str, select: Sequence[str], *, filter_: str = "", order: str = "",
        top: int = 0, skip: int = 0,
    ) -> Feed:  # fmt: skip
        """Some rows of an object; those that may not be seen are left out by 1C."""
        params = {"$format": "json", "allowedOnly": "true", "$select": ",".join(select)}
        if filter_:
            params["$filter"] = filter_
        if order:
            params["$orderby"] = order
        if top:
            params |= {"$top": str(top), "$skip": str(skip), "$inlinecount": "allpages"}
        found: Feed = self.ask(path, params, lambda a: read_json(a, Feed))
        return found

    def batches(
        self, path: str, select: Sequence[str], keys: Sequence[str]
    ) -> Iterator[list[msgspec.Raw]]:
        """The rows of some ids, as many at once as an address may name."""
        room = URL_MAX - len(quote(path + ",".join(select))) - 200
        each = len(quote("Ref_Key eq guid'' or ")) + 36
        size = max(1, min(BATCH, room // each))
        for start in range(0, len(keys), size):
            part = keys[start : start + size]
            wanted = " or ".join(f"Ref_Key eq {guid(k)}" for k in part)
            yield self.rows(path, select, filter_=wanted).value

    def one(self, object_: str, key: str, select: Sequence[str]) -> dict[str, Any] | None:
        """One object by its id; None when there is none."""
        for raws in self.batches(object_, select, [key]):
            for raw in raws:
                return _decode_row(raw)
        return None

    def metadata(self) -> bytes:
        """What is published, as XML."""
        headers = {"Accept": "application/xml"}
        found: bytes = self.ask(_METADATA, {}, lambda a: a.body, headers=headers)
        return found

    def _learn(self, answer: Answer, bucket: Bucket) -> None:
        # Who is not let in has no session.
        self._is_begun = self._is_begun or answer.status not in (401, 403)
        if self._is_ending:
            raise Trouble("ended", "the session is ended", is_permanent=True)
        _judge(answer)


def guid(key: str) -> str:
    """An id as it stands in an address. Raises Trouble for what is none."""
    if not _GUID.fullmatch(key):
        raise Trouble("id-malformed", f"{ascii(key)[:60]} is no id of 1C", is_permanent=True)
    return f"guid'{key}'"


def _query(params: dict[str, str]) -> str:
    # Blanks as %20: not every web server before 1C reads a plus as one.
    pairs = [f"{quote(k, safe='$')}={quote(v, safe=_SAFE)}" for k, v in params.items()]
    return "?" + "&".join(pairs) if pairs else ""


def _judge(answer: Answer) -> None:
    """Tell what 1C refuses from what a web server does. Raises Trouble."""
    status = answer.status
    if 200 <= status < 300 or status in (502, 503, 504):
        return
    try:
        error = msgspec.json.decode(answer.body, type=_Refusal).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        error = None
    said = " ".join(error.message.value.split())[:_SAID_MAX] if error is not None else ""
    if status in (401, 403):
        text = said or "the name or the password is not taken, or the user may not use OData"
        raise Trouble(f"http-{status}", f"1C: {text}", is_permanent=True)
    if status == 404:
        # Objects are asked for by a filter, so it is the resource that is not there.
        raise Trouble("not-published", said, is_permanent=True)
    if status in (409, 412):
        raise Trouble("changed-there", f"1C: {said or 'it was changed meanwhile'}", is_permanent=True)  # fmt: skip
    if error is None:
        return
    if any(w in said.casefold() for w in _SEATS):
        raise Trouble("no-seat", f"1C: {said}")
    if any(w in said.casefold() for w in _LOST):
        # Ended by an administrator, or forgotten: the next look begins one of its own.
        raise Trouble("session-lost", f"1C: {said}")
    is_busy = any(w in said.casefold() for w in _BUSY)
    raise Trouble("refused-by-1c", f"1C: {said}", is_permanent=not is_busy)


def _explained(trouble: Trouble, path: str) -> Trouble:
    """With the object named where the object is what is missing."""
    if trouble.code != "not-published":
        return trouble
    if path == _METADATA:
        text = "the base is not at this address, or without its OData interface"
        return Trouble("not-published", text, is_permanent=True)
    text = (
        f"{path} is not published; add it in 1C to СоставСтандартногоИнтерфейсаOData, or leave its "
        f"entity out (leave_out). {trouble.detail}"
    )
    return Trouble("not-published", text.strip(), is_permanent=True)
