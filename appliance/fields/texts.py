"""Text, long text, e-mail, phone and link: what people type."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import ClassVar
from urllib.parse import urlsplit

import msgspec
import re2

from appliance.base import limits
from appliance.fields.base import (
    DefinitionFault,
    FieldType,
    SlotValue,
    StoredCheck,
    ValueFault,
    refuse_form,
)
from appliance.fields.definition import check_common
from appliance.kernel.kind import Field, Json, Policy
from appliance.kernel.text import fold

# C0 and C1 controls, surrogates and what Unicode will never assign.
UNASSIGNABLE = "\ufdd0-\ufdef" + "".join(
    f"{chr(plane + 0xFFFE)}{chr(plane + 0xFFFF)}" for plane in range(0, 0x110000, 0x10000)
)
_REFUSED_LONG = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff{UNASSIGNABLE}]")
_REFUSED = re.compile(f"[\x00-\x1f\x7f-\x9f\ud800-\udfff{UNASSIGNABLE}]")
_EMAIL = re.compile(
    r"""[^\s@"<>()\[\],;:\\]{1,64}@(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+"""
    r"[a-z0-9][a-z0-9-]{0,61}[a-z0-9]\Z"
)
_PHONE = re.compile(r"[+0-9 ().\-/x]{3,40}\Z")
# The last four digits of a number this short would be most of it.
_PHONE_SHORT = 7
# A backslash means different hosts to different readers of one address.
_URL_REFUSED = re.compile(r"[\s\\]")
_NO_DIGIT = re.compile(r"[^0-9]+")
_COUNT = re.compile(r"[0-9]{1,6}\Z")
_COMPARED = frozenset({"is_null", "eq", "ne", "in", "not_in", "contains", "starts_with"})
_TEXT_OPS = _COMPARED | {"gt", "gte", "lt", "lte", "between"}
_PATTERN_BYTES_MAX = 1 << 20


def clean(value: Json, *, long: bool = False) -> str:
    """NFC text without characters that cannot be stored or shown. Raises ValueFault.

    A `long` text may hold tabs and line ends; every line end becomes a line feed.
    """
    if not isinstance(value, str):
        raise ValueFault("wrong_type", "Expected text.")
    if long and "\r" in value:
        value = value.replace("\r\n", "\n").replace("\r", "\n")
    # Printable is the common case, and asking for it much faster than the search.
    shown = value.replace("\n", "").replace("\t", "") if long else value
    if not shown.isprintable():
        bad = (_REFUSED_LONG if long else _REFUSED).search(value)
        if bad:
            raise ValueFault(
                "character_refused",
                f"Character U+{ord(bad.group()):04X} at {bad.start()} is not allowed here.",
            )
    return value if value.isascii() else unicodedata.normalize("NFC", value)


@lru_cache(maxsize=256)
def compile_pattern(pattern: str) -> object | None:
    """A pattern that runs in linear time whatever it is given (RE2); None when it is not one.

    The memory bound keeps a match of the longest text that takes a pattern below
    `limits.PATTERN_TIME_MS` (tests/fields/test_texts.py).
    """
    options = re2.Options()
    options.max_mem = _PATTERN_BYTES_MAX
    options.log_errors = False
    options.never_capture = True
    try:
        compiled: object = re2.compile(pattern, options)
    except (re2.error, UnicodeError):
        return None
    return compiled


class Text(FieldType):
    """One line. `max` bounds its characters (255), `pattern` must match the whole value."""

    name: ClassVar[str] = "text"
    slot: ClassVar[str] = "t"
    operators: ClassVar[frozenset[str]] = _TEXT_OPS
    sortable: ClassVar[bool] = True
    searchable: ClassVar[bool] = True
    aggregates: ClassVar[frozenset[str]] = frozenset({"count", "count_distinct"})
    bounded: ClassVar[bool] = True
    patterned: ClassVar[bool] = True
    chars_max: ClassVar[int] = limits.TEXT_CHARS_MAX
    most: ClassVar[int] = limits.TEXT_SLOT_CHARS_MAX

    def check_definition(self, field: Field) -> list[DefinitionFault]:
        return check_common(self, field, [*self._check_bounds(field), *check_pattern(field)])

    def _check_bounds(self, field: Field) -> list[DefinitionFault]:
        """Faults of `min` and `max` as numbers of characters."""
        most = self.most
        bounds = {"min": field.min, "max": field.max}
        faults = [
            DefinitionFault(f"/{name}", "bound_malformed", f"Expected characters, 1 to {most}.")
            for name, bound in bounds.items()
            if bound is not None and not (_COUNT.match(bound) and 1 <= int(bound) <= most)
        ]
        if not faults and int(field.min or 1) > int(field.max or self.chars_max):
            detail = "Expected at most as many characters as the maximum."
            faults.append(DefinitionFault("/min", "bounds_crossed", detail))
        return faults

    def accept(self, field: Field, value: Json) -> Json:
        text = self._measure(field, clean(value).strip())
        if field.pattern:
            found = compile_pattern(field.pattern)
            if found is None or found.fullmatch(text) is None:  # type: ignore[attr-defined]
                raise ValueFault("pattern_mismatch", f"Does not match the pattern {field.pattern}.")
        return text

    def _measure(self, field: Field, text: str) -> str:
        """The text when its length is within bounds."""
        most = int(field.max) if field.max else self.chars_max
        if len(text) > most:
            raise ValueFault("too_long", f"At most {most} characters; {len(text)} were sent.")
        if not text or text.isspace():
            raise ValueFault("empty", "Expected some text; send null to clear the field.")
        if field.min and len(text) < int(field.min):
            raise ValueFault("too_short", f"At least {field.min} characters.")
        return text

    def stored_check(self, field: Field) -> StoredCheck:
        free, accept = self._unbounded(field), self.accept_held
        is_free, most = type(self).accept in (Text.accept, LongText.accept), int(free.max or 0)

        def check(value: Json) -> None:
            # The common case, without the general way.
            if (
                is_free and isinstance(value, str) and value.isascii() and value.isprintable()
                and 0 < len(value) <= most and " " not in (value[0], value[-1])
            ):  # fmt: skip
                return
            if accept(free, value) != value:
                refuse_form()

        return check

    def _unbounded(self, field: Field) -> Field:
        # Texts that are merged by lines may have become longer than any of them.
        most = self.most * (4 if field.policy is Policy.TEXT3 else 1)
        return msgspec.structs.replace(field, min=None, max=str(most), pattern=None)

    def operand(self, field: Field, value: Json) -> SlotValue:
        return fold(clean(value))

    def slot_value(self, field: Field, value: Json) -> SlotValue:
        return fold(str(value))

    def search_text(self, field: Field, value: Json) -> str:
        return str(value)

    def json_schema(self, field: Field) -> dict[str, object]:
        return {"type": "string", "maxLength": int(field.max) if field.max else self.chars_max}


class LongText(Text):
    """Many lines, as they were typed; found by search, never by a filter."""

    name: ClassVar[str] = "long_text"
    slot: ClassVar[str] = ""
    operators: ClassVar[frozenset[str]] = frozenset({"is_null"})
    sortable: ClassVar[bool] = False
    aggregates: ClassVar[frozenset[str]] = frozenset({"count"})
    patterned: ClassVar[bool] = False  # a pattern over 100 000 characters takes too long
    chars_max: ClassVar[int] = limits.LONG_TEXT_CHARS_MAX
    most: ClassVar[int] = limits.LONG_TEXT_CHARS_MAX

    def accept(self, field: Field, value: Json) -> Json:
        return self._measure(field, clean(value, long=True))

    def slot_value(self, field: Field, value: Json) -> SlotValue:
        return None

    def operand(self, field: Field, value: Json) -> SlotValue:
        raise ValueFault("not_filterable", "A long text is found by search, not by a filter.")


class Email(Text):
    """An address as people write it; the domain in lower case (RFC 5321, without quoting)."""

    name: ClassVar[str] = "email"
    bounded: ClassVar[bool] = False
    patterned: ClassVar[bool] = False

    def accept(self, field: Field, value: Json) -> Json:
        local, at, domain = clean(value).strip().rpartition("@")
        text = f"{local}{at}{domain.lower()}"
        dotted = local.startswith(".") or local.endswith(".") or ".." in local
        if len(text) > 254 or dotted or not _EMAIL.match(text):
            raise ValueFault("email_malformed", "Expected an address like name@example.org.")
        return text

    def mask(self, field: Field, value: Json) -> Json:
        local, _, domain = str(value).partition("@")
        return f"{local[:1]}•••@{domain}"

    def json_schema(self, field: Field) -> dict[str, object]:
        return {"type": "string", "format": "email", "maxLength": 254}


class Phone(Text):
    """A number as people write it; compared and searched by its digits."""

    name: ClassVar[str] = "phone"
    bounded: ClassVar[bool] = False
    patterned: ClassVar[bool] = False

    def accept(self, field: Field, value: Json) -> Json:
        text = clean(value).strip()
        if not _PHONE.match(text) or not 3 <= len(normal_phone(text).lstrip("+")) <= 20:
            raise ValueFault("phone_malformed", "Expected a number like +380 44 123 45 67.")
        return text

    def operand(self, field: Field, value: Json) -> SlotValue:
        found = normal_phone(clean(value))
        if not found.strip("+"):
            raise ValueFault("phone_malformed", "Expected at least one digit.")
        return found

    def slot_value(self, field: Field, value: Json) -> SlotValue:
        return normal_phone(str(value))

    def search_text(self, field: Field, value: Json) -> str:
        return normal_phone(str(value)).lstrip("+")

    def mask(self, field: Field, value: Json) -> Json:
        digits = normal_phone(str(value)).lstrip("+")
        return "•••" + digits[-4:] if len(digits) > _PHONE_SHORT else "•••"


class Url(Text):
    """A web address, http or https, without a password in it."""

    name: ClassVar[str] = "url"
    chars_max: ClassVar[int] = limits.TEXT_SLOT_CHARS_MAX

    def accept(self, field: Field, value: Json) -> Json:
        text = str(super().accept(field, value))
        try:
            parts = urlsplit(text)
            plain = (
                parts.scheme in ("http", "https")
                and parts.hostname
                and "@" not in parts.netloc
                and parts.port != 0
            )
        except ValueError:
            plain = None
        if not plain or _URL_REFUSED.search(text):
            raise ValueFault("url_malformed", "Expected an address like https://example.org/page.")
        return text

    def json_schema(self, field: Field) -> dict[str, object]:
        return {"type": "string", "format": "uri", "maxLength": self.chars_max}


def normal_phone(text: str) -> str:
    """The digits of a number, with a leading + when it has one."""
    digits = _NO_DIGIT.sub("", text)
    return f"+{digits}" if text.lstrip().startswith("+") else digits


def check_pattern(field: Field) -> list[DefinitionFault]:
    """Faults of the pattern: length, and whether RE2 knows it."""
    pattern = field.pattern
    if pattern is None:
        return []
    if len(pattern) <= limits.PATTERN_CHARS_MAX and compile_pattern(pattern) is not None:
        return []
    detail = (
        f"Use an RE2 pattern of at most {limits.PATTERN_CHARS_MAX} characters; back-references and "
        "look-around are not available, so that a match takes bounded time."
    )
    return [DefinitionFault("/pattern", "pattern_malformed", detail)]
