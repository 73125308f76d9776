"""The connector: which encoding the text is really in, and its reading."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from connectors.formats.lines import Text, open_lines
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
from connectors.systems.client_bank.reader import Reader

_HEAD = 16_384
_SIGN = "1cclientbankexchange"
_ENCODINGS = ("utf-8", "cp1251", "cp866", "koi8-r", "mac_cyrillic")
_KNOWN = ("ВерсияФормата", "Кодировка", "СекцияДокумент", "СекцияРасчСчет")
_DECLARED = {"windows": "cp1251", "dos": "cp866", "utf-8": "utf-8", "utf8": "utf-8"}


class ClientBank:
    """1CClientBankExchange."""

    def open(self, path: Path) -> ClientBankFile:
        """See sdk.contract.Connector."""
        return ClientBankFile(path)

    def recognises(self, head: bytes, name: str) -> float:
        """See sdk.contract.Recogniser."""
        return 1.0 if _SIGN.encode() in head[:200].replace(b"\0", b"").lower() else 0.0


class ClientBankFile:
    """One file. Its own keywords tell its encoding: what it declares is only compared."""

    def __init__(self, path: Path) -> None:
        self._path = path
        text = open_lines(path, expected="cp1251")
        with path.open("rb") as file:
            head = file.read(_HEAD)
        encoding = _find_encoding(head, text.encoding)
        decoded = head.decode(encoding, "ignore").lstrip("\ufeff \t\r\n")
        if not decoded.lower().startswith(_SIGN):
            first = decoded[:60].splitlines()[0] if decoded else "nothing"
            raise Refused(Fault("not-this-format", "1CClientBankExchange in line 1", first))
        self._facts = _read_facts(decoded)
        warnings = text.warnings
        declared = _DECLARED.get(self._facts.get("Кодировка", "").lower(), "")
        if declared and declared != encoding and not head.isascii():
            expected = f"text in {declared}, as Кодировка={self._facts['Кодировка']} says"
            warnings += (Fault("encoding-mismatch", expected, encoding, Place(row=1)),)
        self._text = msgspec.structs.replace(text, encoding=encoding, warnings=warnings, holds=())

    def inspect(self, learned: dict[str, str]) -> Found:
        """See sdk.contract.Source."""
        version = self._facts.pop("ВерсияФормата", "")
        warnings = self._text.warnings
        if version and version not in ("1.00", "1.01", "1.02", "1.03", "2.01"):
            warnings += (Fault("unknown-version", "a version up to 1.03", version),)
        found = Inspection(
            "1CClientBankExchange", self._text.encoding, (), warnings, version, self._facts
        )
        return Found(found, Mapping())

    def read(self, mapping: Mapping) -> Iterator[Rows | Progress | Summary]:
        """See sdk.contract.Source. Constants: `encoding`; `accounts`: own accounts beside those
        that the file declares, with commas between; `currency` where no account tells it.
        """
        constants = mapping.constants
        encoding = mapping.encoding or constants.get("encoding", "")
        text: Text = open_lines(self._path, encoding) if encoding else self._text
        accounts = [a.strip() for a in constants.get("accounts", "").split(",") if a.strip()]
        reader = Reader(text, accounts, constants.get("currency", ""))
        yield from reader.read(self._path.stat().st_size // 900)


def _find_encoding(head: bytes, guessed: str) -> str:
    if guessed.startswith("utf-16"):
        return guessed
    for encoding in _ENCODINGS:
        if any(word in head.decode(encoding, "ignore") for word in _KNOWN):
            return encoding
    return guessed


def _read_facts(head: str) -> dict[str, str]:
    """The lines of the head before its first section."""
    found: dict[str, str] = {}
    for line in head.splitlines()[1:40]:
        key, mark, value = line.partition("=")
        if key.strip().casefold().startswith("секция"):
            break
        if mark and value.strip():
            found.setdefault(key.strip(), value.strip())
    return found
