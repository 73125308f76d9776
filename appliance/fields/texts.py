"""Text, long text, e-mail, phone and link: what people type."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import ClassVar
from urllib.parse import urlsplit

import re2

from appliance.base import limits
from appliance.fields.base import DefinitionFault, FieldType, SlotValue, ValueFault
from appliance.fields.definition import check_common
from appliance.kernel.kind import Field, Json
from appliance.kernel.text import fold

_UNSTORABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff\ufffe\uffff]|[\t\n]")
_UNSTORABLE_LONG = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
_EMAIL = re.compile(r"[^\s@\"<>()\[\],;:\\]{1,64}@([a-z0-9](?:[a-z0-9-]{0,62}\.)+[a-z0-9-]{2,63})\Z")
_TEXT_OPS = frozenset(
    {"is_null", "eq", "ne", "in", "not_in", "contains", "starts_with", "gt", "gte", "lt", "lte", "between"}
)


def clean(value: Json, *, long: bool = False) -> str:
    """NFC text without characters that cannot be stored or shown. Raises ValueFault."""
    if not isinstance(value, str):
        raise ValueFault("wrong_type", "Expected text.")
    bad = (_UNSTORABLE_LONG if long else _UNSTORABLE).search(value)
    if bad:
        raise ValueFault(
            "character_refused", f"Character U+{ord(bad.group()):04X} at {bad.start()} is not allowed here."
        )
    return value if value.isascii() else unicodedata.normalize("NFC", value)


@lru_cache(maxsize=2_000)
def compile_pattern(pattern: str) -> object | None:
    """A pattern that runs in linear time whatever it is given (RE2); None when it is not one."""
    options = re2.Options()
    options.max_mem = 1 << 20
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except (re2.error, UnicodeError):
        return None


class Text(FieldType):
    """One line. `max` bounds its characters (255), `pattern` must match the whole value."""

    name: ClassVar[str] = "text"
    slot: ClassVar[str] = "t"
    operators: ClassVar[frozenset[str]] = _TEXT_OPS
    sortable: ClassVar[bool] = True
    searchable: ClassVar[bool] = True
    aggregates: ClassVar[frozenset[str]] = frozenset({"count", "count_distinct"})
    chars_max: ClassVar[int] = limits.TEXT_CHARS_MAX

    def check_definition(self, field: Field) -> list[DefinitionFault]:
        faults = check_common(self, field)
        for name in ("min", "max"):
            bound = getattr(field, name)
            if bound is not None and not (bound.isdigit() and int(bound) <= self._most(field)):
                faults.append(
                    DefinitionFault(f"/{name}", "bound_malformed", f"Characters, 0 to {self._most(field)}.")
                )
        if field.pattern is not None and (
            len(field.pattern) > limits.PATTERN_CHARS_MAX or compile_pattern(field.pattern) is None
        ):
            faults.append(
                DefinitionFault(
                    "/pattern", "pattern_malformed",
                    "Use an RE2 pattern of at most 200 characters; back-references and look-around "
                    "are not available, so that a match takes bounded time.",
                )
            )  # fmt: skip
        return faults

    def _most(self, field: Field) -> int:
        return limits.TEXT_SLOT_CHARS_MAX

    def accept(self, field: Field, value: Json) -> Json:
        text = clean(value).strip()
        most = int(field.max) if field.max else self.chars_max
        if len(text) > most:
            raise ValueFault("too_long", f"At most {most} characters; {len(text)} were sent.")
        if not text:
            raise ValueFault("empty", "Expected some text; send null to clear the field.")
        if field.min and len(text) < int(field.min):
            raise ValueFault("too_short", f"At least {field.min} characters.")
        if field.pattern:
            found = compile_pattern(field.pattern)
            if found is None or found.fullmatch(text) is None:  # type: ignore[attr-defined]
                raise ValueFault("pattern_mismatch", f"Does not match the pattern {field.pattern}.")
        return text

    def operand(self, field: Field, value: Json) -> SlotValue:
        return fold(clean(value))

    def slot_value(self, field: Field, value: Json) -> SlotValue:
        return fold(str(value))

    def search_text(self, field: Field, value: Json) -> str:
        return str(value)

    def json_schema(self, field: Field) -> dict[str, object]:
        return {"type": "string", "maxLength": int(field.max) if field.max else self.chars_max}


class LongText(Text):
    """Many lines; found by search, filtered by `contains` within what else narrows the list."""

    name: ClassVar[str] = "long_text"
    slot: ClassVar[str] = ""
    operators: ClassVar[frozenset[str]] = frozenset({"is_null"})
    sortable: ClassVar[bool] = False
    aggregates: ClassVar[frozenset[str]] = frozenset({"count"})

    def _most(self, field: Field) -> int:
        return limits.LONG_TEXT_CHARS_MAX

    def accept(self, field: Field, value: Json) -> Json:
        text = clean(value, long=True)
        most = int(field.max) if field.max else limits.LONG_TEXT_CHARS_MAX
        if len(text) > most:
            raise ValueFault("too_long", f"At most {most} characters; {len(text)} were sent.")
        if not text.strip():
            raise ValueFault("empty", "Expected some text; send null to clear the field.")
        return text


class Email(Text):
    """An address as people write it; the domain in lower case (RFC 5321, without quoting)."""

    name: ClassVar[str] = "email"

    def accept(self, field: Field, value: Json) -> Json:
        local, at, domain = clean(value).strip().rpartition("@")
        text = f"{local}{at}{domain.lower()}"
        if len(text) > 254 or not _EMAIL.match(text) or ".." in text:
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

    def accept(self, field: Field, value: Json) -> Json:
        text = clean(value).strip()
        digits = normal_phone(text)
        if not re.fullmatch(r"[+0-9 ().\-/x]{3,40}", text) or not 3 <= len(digits.lstrip("+")) <= 20:
            raise ValueFault("phone_malformed", "Expected a number like +380 44 123 45 67.")
        return text

    def operand(self, field: Field, value: Json) -> SlotValue:
        return normal_phone(clean(value))

    def slot_value(self, field: Field, value: Json) -> SlotValue:
        return normal_phone(str(value))

    def search_text(self, field: Field, value: Json) -> str:
        return normal_phone(str(value)).lstrip("+")

    def mask(self, field: Field, value: Json) -> Json:
        return "•••" + normal_phone(str(value))[-4:]


class Url(Text):
    """A web address, http or https, without a password in it."""

    name: ClassVar[str] = "url"
    chars_max: ClassVar[int] = limits.TEXT_SLOT_CHARS_MAX

    def accept(self, field: Field, value: Json) -> Json:
        text = str(super().accept(field, value))
        try:
            parts = urlsplit(text)
            plain = parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.netloc
        except ValueError:
            plain = None
        if not plain or " " in text:
            raise ValueFault("url_malformed", "Expected an address like https://example.org/page.")
        return text

    def json_schema(self, field: Field) -> dict[str, object]:
        return {"type": "string", "format": "uri", "maxLength": self.chars_max}


def normal_phone(text: str) -> str:
    """The digits of a number, with a leading + when it has one."""
    digits = "".join(c for c in text if c.isascii() and c.isdigit())
    return f"+{digits}" if text.lstrip().startswith("+") else digits


