"""What :86: says, in the dialects of banks: German and Polish ?nn fields with SEPA keys inside,
Dutch /KEY/value lists, ABN's labels, and free text.

Lines are wrapped in the middle of words: German pieces are joined without a blank, the others with
one where a line was shorter than it had to be. What no dialect claims is the purpose, whole.
"""

from __future__ import annotations

import re

_FIELDS = re.compile(r"(\d{3})?([?<^~>])(?=\d\d)")
_SEPA = re.compile(
    r"(EREF|KREF|MREF|CRED|DEBT|SVWZ|ABWA|ABWE|IBAN|BIC|COAM|OAMT|PURP|BREF|RREF|ANAM)\+"
)
_SLASHED = "TRTP|IBAN|BIC|NAME|REMI|EREF|MARF|CSID|CNTP|ORDP|BENM|ISDT|PURP|PREF|ADDR|KREF|RTRN"
_KEY = re.compile(rf"/({_SLASHED})/")
_BEGINS_SLASHED = re.compile(rf"/(?:{_SLASHED})/")
_LABELS = re.compile(
    r"(?:^|(?<=[\s/]))(IBAN|REK|BIC|NAAM|NAME|OMSCHRIJVING|BETALINGSKENM\.|KENMERK|MACHTIGING): "
)
_STRUCTURED = re.compile(r"/?CDTRREFTP//CD/SCOR/ISSR/[A-Z]*/CDTRREF/([^/]+)|STRD/[A-Z]*/([^/]+)")
_CREDITOR = re.compile(r"\bRF\d{2}[A-Z0-9]{1,21}\b")
_IBAN_FIRST = re.compile(r"([A-Z]{2}\d{2}[A-Z0-9]{11,30}) +(\S.*)")
_ABSENT = frozenset({"", "NOTPROVIDED", "NONREF", "NOT PROVIDED"})
_FULL_GERMAN, _FULL_DUTCH, _FULL = 27, 55, 65


def read_narrative(lines: list[str]) -> dict[str, str]:
    """The fields of a bank line that the lines of :86: tell, none of them empty."""
    first = lines[0].lstrip()
    if _FIELDS.match(first):
        found = _read_fields("".join(lines).lstrip())
    elif first.startswith("/") and _KEY.search(_join(lines, _FULL_DUTCH)):
        found = _read_slashed(_join(lines, _FULL_DUTCH))
    else:
        found = _read_free(lines)
    if "reference" not in found and (creditor := _CREDITOR.search(found.get("purpose", ""))):
        found["reference"] = creditor[0]
    return {k: v for k, v in found.items() if v not in _ABSENT}


def _join(lines: list[str], full: int) -> str:
    """Wrapped lines as one: a key that was broken in two is healed."""
    text = lines[0]
    last = len(lines[0])
    for line in lines[1:]:
        tail = text[text.rfind("/") :] + line[: line.find("/") + 1]
        is_whole = last >= full or line.startswith("/") or _BEGINS_SLASHED.fullmatch(tail)
        text += line if is_whole else " " + line
        last = len(line)
    return text


def _read_fields(text: str) -> dict[str, str]:
    head = _FIELDS.match(text)
    mark = head[2] if head else "?"
    code = (head[1] or "") if head else ""
    parts: dict[str, list[str]] = {}
    for piece in re.split(rf"{re.escape(mark)}(?=\d\d)", text[len(code) :])[1:]:
        parts.setdefault(piece[:2], []).append(piece[2:])
    one = {k: "".join(v) for k, v in parts.items()}
    texts = [t for n, ts in parts.items() if n[0] == "2" or "60" <= n <= "63" for t in ts]
    found = _read_sepa("".join(texts))
    if not found:
        found = {"purpose": _join_pieces(texts)}
    found["counterparty"] = _squeeze(one.get("32", "") + one.get("33", "")) or found.get(
        "counterparty", ""
    )
    found["counterparty_account"] = _squeeze(
        one.get("31", "") or one.get("38", "") or found.get("counterparty_account", "")
    )
    found["counterparty_bank"] = _squeeze(one.get("30", "") or found.get("counterparty_bank", ""))
    found["kind"] = _squeeze(f"{code} {one.get('00', '')}")
    return found


def _read_sepa(text: str) -> dict[str, str]:
    """EREF+.. SVWZ+.. and the like; values run over the borders of fields."""
    pieces = _SEPA.split(text)
    if len(pieces) == 1:
        return {}
    said: dict[str, str] = {}
    for key, value in zip(pieces[1::2], pieces[2::2], strict=True):
        said.setdefault(key, _squeeze(value))
    return {
        "purpose": _squeeze(f"{pieces[0]} {said.get('SVWZ', '')}"),
        "end_to_end": said.get("EREF", ""),
        "mandate": said.get("MREF", ""),
        "counterparty": said.get("ANAM", "") or said.get("ABWA", ""),
        "counterparty_account": said.get("IBAN", ""),
        "counterparty_bank": said.get("BIC", ""),
    }


def _join_pieces(pieces: list[str]) -> str:
    text = ""
    for n, piece in enumerate(pieces):
        is_whole = n == 0 or len(pieces[n - 1]) >= _FULL_GERMAN
        text += piece if is_whole else " " + piece
    return _squeeze(text)


def _read_slashed(text: str) -> dict[str, str]:
    pieces = _KEY.split(text)
    said: dict[str, str] = {}
    for key, value in zip(pieces[1::2], pieces[2::2], strict=True):
        if value.strip("/ ") and not said.get(key):
            said[key] = value.strip()
    party = said.get("CNTP", "").split("/")
    purpose = said.get("REMI", "")
    structured = _STRUCTURED.search(purpose)
    purpose = re.sub(r"^(USTD|STRD)/+", "", purpose).strip("/ ")
    name = said.get("NAME", "") or (party[2] if len(party) > 2 else "")
    return {
        "purpose": _squeeze(purpose or pieces[0]),
        "reference": ((structured[1] or structured[2]) if structured else "").strip(),
        "end_to_end": _squeeze(said.get("EREF", "").strip("/")),
        "mandate": _squeeze(said.get("MARF", "").strip("/")),
        "counterparty": _squeeze(name.strip("/")),
        "counterparty_account": said.get("IBAN", "").strip("/ ") or party[0].strip(),
        "counterparty_bank": said.get("BIC", "").strip("/ ")
        or (party[1].strip() if len(party) > 1 else ""),
        "kind": _squeeze(said.get("TRTP", "").strip("/")),
    }


def _read_free(lines: list[str]) -> dict[str, str]:
    text = " ".join(filter(None, (_squeeze(t) for t in _unwrap(lines))))
    found = {"purpose": text}
    pieces = _LABELS.split(text)
    if len(pieces) > 1:
        said = {k: v.strip(" /") for k, v in zip(pieces[1::2], pieces[2::2], strict=True)}
        found["counterparty"] = said.get("NAAM", "") or said.get("NAME", "")
        account = (said.get("IBAN", "") or said.get("REK", "")).split()
        found["counterparty_account"] = account[0] if account else ""
        bank = said.get("BIC", "").split()
        found["counterparty_bank"] = bank[0] if bank else ""
    elif party := _IBAN_FIRST.match(_squeeze(lines[0])):
        found["counterparty_account"], found["counterparty"] = party[1], party[2]
    return found


def _unwrap(lines: list[str]) -> list[str]:
    """Lines of free text; one that fills all of its width goes on in the next."""
    found: list[str] = []
    goes_on = False
    for line in lines:
        if goes_on and not line.startswith(" "):
            found[-1] += line
        else:
            found.append(line)
        goes_on = len(line) >= _FULL and not line.endswith(" ")
    return found


def _squeeze(text: str) -> str:
    return " ".join(text.split())
