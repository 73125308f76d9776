"""An entry as a flat dictionary of paths, and the values that stand in it.

Versions differ in wrappers: from 08 on parties stand in `Pty`, the status in `Cd`, dates may be
moments. The rest of the house asks by meaning.
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from functools import lru_cache

from connectors.formats.statements import parse_amount
from connectors.formats.xml import LOCAL, Element
from connectors.sdk.contract import Value

Flat = dict[str, str]

_PASSED = frozenset({"PstlAdr", "CtctDtls", "SplmtryData", "Tax", "RltdDts", "RltdPric"})
_JOINED = frozenset({"Ustrd", "AddtlRmtInf", "AddtlTxInf", "AddtlNtryInf"})
_ABSENT = frozenset({"NOTPROVIDED", "NONREF", "NOT PROVIDED", "NOTAVAILABLE"})
# What never has a text of its own, in any version.
_CONTAINERS = frozenset(
    "BkTxCd Domn Fmly NtryDtls Btch Refs AmtDtls TxAmt CntrValAmt RltdPties Dbtr Cdtr UltmtDbtr "
    "UltmtCdtr DbtrAcct CdtrAcct Pty OrgId PrvtId Othr SchmeNm RltdAgts DbtrAgt CdtrAgt FinInstnId "
    "RmtInf Strd CdtrRefInf CdOrPrtry BookgDt ValDt PstlAdr Chrgs Rcrd".split()
)
_PLAIN, _AMOUNT, _JOIN, _DETAIL, _CONTAINER = range(5)
_NODES_MAX = 20_000


class Paths(dict[str, "tuple[str, Paths, int]"]):
    """What the children of one kind of element are, learned as they come: path, their own
    children, what is done with their text. A path that is passed over is empty.
    """

    def __init__(self, prefix: str = "", *, is_passed: bool = False) -> None:
        super().__init__()
        self._prefix, self._is_passed = prefix, is_passed

    def __missing__(self, tag: str) -> tuple[str, Paths, int]:
        name = LOCAL[tag]
        is_passed = self._is_passed or name in _PASSED
        if name == "TxDtls":
            return self._keep(tag, ("", Paths(), _DETAIL))
        path = "" if is_passed else self._prefix + name
        kind = _AMOUNT if name.endswith("Amt") else _JOIN if name in _JOINED else _PLAIN
        if name in _CONTAINERS:
            kind = _CONTAINER
        return self._keep(tag, (path, Paths(path + "/", is_passed=is_passed), kind))

    def _keep(self, tag: str, node: tuple[str, Paths, int]) -> tuple[str, Paths, int]:
        if len(self) < _NODES_MAX:
            self[tag] = node
        return node


def flatten(element: Element, paths: Paths) -> tuple[Flat, list[Flat]]:
    """Text by path of local names, the first of each, currencies under the path and '@'; and the
    same for each TxDtls inside. One walk in document order: the parent tells how deep it is.
    """
    found: Flat = {}
    whole, details = found, []
    walk = element.iter()
    top = last = next(walk)
    inner, inside = paths, found
    stack: list[tuple[Element, Paths, Flat]] = []
    for child in walk:
        parent = child.getparent()
        if parent is not top:
            if parent is last:
                stack.append((top, paths, found))
                top, paths, found = parent, inner, inside
            else:
                while parent is not top:
                    top, paths, found = stack.pop()
        last = child
        path, inner, kind = paths[child.tag]
        inside = found
        if kind == _CONTAINER:
            continue
        if kind == _DETAIL:
            inside = {}
            details.append(inside)
        elif path and (text := child.text) and not text.isspace():
            if path not in found:
                found[path] = text.strip()
                if kind == _AMOUNT:
                    found[path + "@"] = child.get("Ccy") or ""
            elif kind == _JOIN:
                found[path] = f"{found[path]} {text.strip()}"
    return whole, details


def pick(flat: Flat, *paths: str) -> str:
    """The first of these paths that says something."""
    for path in paths:
        text = flat.get(path)
        if text and text not in _ABSENT:
            return text
    return ""


@lru_cache(maxsize=4_096)
def parse_day(text: str) -> str | None:
    """The day of a date or moment, '' for none, None for what is neither."""
    text = text.strip()
    if not text or text.startswith("0001"):
        return ""
    try:
        return (
            date.fromisoformat(text[:10]).isoformat()
            if text[10:11] in ("", "T", "Z", "+", "-")
            else None
        )
    except ValueError:
        return None


def read_day(flat: Flat, name: str) -> str | None:
    """A date choice: Dt or DtTm."""
    return parse_day(flat.get(f"{name}/Dt") or flat.get(f"{name}/DtTm") or "")


def sign(flat: Flat, path: str, *, is_debit: bool) -> Decimal | None:
    """The amount at a path, signed."""
    amount = parse_amount(flat.get(path, ""))
    if amount is None or amount < 0:
        return None
    return -amount if is_debit else amount


def read_status(flat: Flat) -> str:
    """BOOK, PDNG, INFO or FUTR: a text, or a code inside."""
    return flat.get("Sts") or flat.get("Sts/Cd") or flat.get("Sts/Prtry") or "BOOK"


def read_kind(flat: Flat) -> str:
    """The bank transaction code: of the domain, or the bank's own."""
    parts = (
        flat.get("BkTxCd/Domn/Cd"),
        flat.get("BkTxCd/Domn/Fmly/Cd"),
        flat.get("BkTxCd/Domn/Fmly/SubFmlyCd"),
    )
    return "-".join(p for p in parts if p) or flat.get("BkTxCd/Prtry/Cd", "")


def _party_paths(role: str) -> tuple[tuple[str, ...], ...]:
    at, agent = f"RltdPties/{role}/", f"RltdAgts/{role}Agt/FinInstnId/"
    ultimate = f"RltdPties/Ultmt{role}/"
    name = (
        f"{at}Nm",
        f"{at}Pty/Nm",
        f"{ultimate}Nm",
        f"{ultimate}Pty/Nm",
        f"{at}Agt/FinInstnId/Nm",
    )
    account = (f"RltdPties/{role}Acct/Id/IBAN", f"RltdPties/{role}Acct/Id/Othr/Id")
    bank = (f"{agent}BICFI", f"{agent}BIC", f"{agent}ClrSysMmbId/MmbId", f"{agent}Nm")
    return name, account, bank, (f"{at}Id/OrgId/Othr/", f"{at}Pty/Id/OrgId/Othr/")


_PARTIES = {role: _party_paths(role) for role in ("Dbtr", "Cdtr")}


def read_party(flat: Flat, role: str, values: dict[str, Value]) -> None:
    """The other side: `role` is Dbtr or Cdtr."""
    names, accounts, banks, identities = _PARTIES[role]
    if name := pick(flat, *names):
        values["counterparty"] = name
    if account := pick(flat, *accounts):
        values["counterparty_account"] = account.replace(" ", "")
    if bank := pick(flat, *banks):
        values["counterparty_bank"] = bank
    for one in identities:
        if flat.get(f"{one}SchmeNm/Cd") == "TXID":
            values["counterparty_tax_id"] = flat.get(f"{one}Id", "")
