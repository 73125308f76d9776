"""Text: whether it is one, and which. A script is one by what it does, whatever it is called.

Telling a script from a text about scripts needs more than a word: a script is called one when it
says so in its first line, or when a good part of its lines are statements of one language.
"""

from __future__ import annotations

import codecs
import json
import re
from mmap import ACCESS_READ, mmap
from pathlib import Path

PLAIN = "text/plain"
XML = "application/xml"
SVG = "image/svg+xml"
HTML = "text/html"
JSON = "application/json"
CSV = "text/csv"
SCRIPTS = frozenset(
    {
        "text/x-shellscript",
        "text/x-powershell",
        "text/x-vbscript",
        "text/x-msdos-batch",
        "text/javascript",
        "text/x-php",
        "text/x-script.python",
        "application/x-ms-script-component",
    }
)
TEXTS = frozenset(
    {
        PLAIN,
        XML,
        JSON,
        CSV,
        "text/x-mt940",
        "text/x-1c-client-bank",
        "text/x-ofx",
        "text/calendar",
        "text/vcard",
        "application/x-commerceml",
        "application/x-yml-catalog",
        "application/x-camt",
        "message/rfc822",
    }
)
_TEXT_CONTROLS = frozenset(b"\t\n\r\f\x0b\x1a\x0e\x0f\x1b\x01\x02\x03\x04\x08\x1c\x1d\x1e")
_NO_TEXT = bytes(b for b in range(32) if b not in _TEXT_CONTROLS) + b"\x7f"
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_JSON_BYTES_MAX = 512 * 1024
_LOOKED_AT = 256 * 1024
_PADDING_MAX = 4096

_ROOT = re.compile(
    r"""\s*(?:<\?.*?\?>\s*|<!--.*?-->\s*|<!doctype\b(?:[^\[<>]|\[.*?\]\s*)*>\s*)*"""
    r"""<([^\W\d][\w.-]*:)?([^\W\d][\w.-]*)""",
    re.DOTALL | re.IGNORECASE,
)
_PAGE_ROOTS = frozenset(("html", "head", "body", "script", "iframe"))
_HTML_ROOTS = frozenset(
    "html head body script iframe object embed form table div p span a img meta style title "
    "center font h1 h2 h3 br input link".split()
)
_HTML_MARKS = re.compile(
    r"<!doctype\s+html|<html[\s>]|<script[\s>/]|<iframe[\s>/]|<body[\s>]|javascript:", re.IGNORECASE
)
_SHEBANG = re.compile(r"#!\s*/\S*?([\w.-]+)(?:\s+(?:-\S+\s+)*([\w.-]+))?\s")
_INTERPRETERS = (
    ("python", "text/x-script.python"),
    ("php", "text/x-php"),
    ("node", "text/javascript"),
    ("pwsh", "text/x-powershell"),
)
_STATEMENTS = {
    "text/x-powershell": re.compile(
        r"""^\s*(?:\$[\w:]+\s*=|(?:function|param)\b.*[({]|(?:Invoke|New|Set|Get|Start|Add|Remove|"""
        r"""Out|Write|Import|Copy|Test|Stop|ConvertFrom|ConvertTo)-[A-Z]\w+|IEX\b|"""
        r"""\[(?:System\.|Net\.|Convert|Reflection)|powershell(?:\.exe)?\s+-)""",
        re.IGNORECASE,
    ),
    "text/x-vbscript": re.compile(
        r"""^\s*(?:Set\s+\w+\s*=\s*(?:CreateObject|GetObject|WScript)|Dim\s+\w+|"""
        r"""On\s+Error\s+Resume\s+Next|WScript\.|Option\s+Explicit|End\s+(?:Sub|Function|If)\b|"""
        r"""(?:Sub|Function)\s+\w+\s*\(|\w+\.(?:Run|Exec|ShellExecute|Open|Send|SaveToFile)\b|"""
        r"""ExecuteGlobal|Execute\s*\()""",
        re.IGNORECASE,
    ),
    "text/x-msdos-batch": re.compile(
        r"""^\s*(?:@echo\s+(?:off|on)\b|@?(?:setlocal|endlocal)\b|rem\s|goto\s+:?\w+|:\w+\s*$|"""
        r"""if\s+(?:not\s+)?(?:exist|errorlevel|"?%)|for\s+/?\w?\s*%%|set\s+(?:/\w\s+)?\w+=|"""
        r"""call\s+\S+|start\s+|del\s+/|copy\s+/|reg\s+(?:add|delete)|cmd\s+/c|"""
        r"""powershell(?:\.exe)?\s+-|certutil\s|bitsadmin\s|mshta\s|rundll32)""",
        re.IGNORECASE,
    ),
    "text/javascript": re.compile(
        r"""^\s*(?:(?:var|let|const)\s+[\w$]+\s*=|(?:async\s+)?function\s*\w*\s*\(|"use strict"|"""
        r"""import\s+.*\bfrom\s+['"]|export\s+(?:default|const|function)|"""
        r"""(?:new\s+ActiveXObject|WScript\.|document\.|window\.|eval\()|[\w$.]+\(.*\);\s*$|"""
        r"""(?:if|for|while|try)\s*[({].*[{]?\s*$|\}\s*catch\s*\()"""
    ),
}
_SURE = {
    "text/x-powershell": re.compile(
        r"""DownloadString|DownloadFile|FromBase64String|Invoke-Expression|\bIEX\b|"""
        r"""-EncodedCommand|Invoke-WebRequest|New-Object\s+(?:System\.)?Net\.|Write-Host|Get-ChildItem"""
        r"""|Start-Process|Set-ExecutionPolicy|Out-File""",
        re.IGNORECASE,
    ),
    "text/x-vbscript": re.compile(r"CreateObject\s*\(|WScript\.|ExecuteGlobal", re.IGNORECASE),
    "text/x-msdos-batch": re.compile(
        r"^\s*@echo\s+off|%~dp0|%%\w|errorlevel|cmd(?:\.exe)?\s+/c|certutil\s|bitsadmin\s|mshta\s",
        re.IGNORECASE | re.MULTILINE,
    ),
    "text/javascript": re.compile(
        r"ActiveXObject|WScript\.|\beval\(|document\.|window\.|=>|function\s*\w*\s*\(|require\("
    ),
}
_STATEMENTS_SHARE = 0.3
_LINES_LOOKED_AT = 400


def type_of_text(path: Path, head: bytes, name: str) -> str:
    """The type of a text, or empty when it is none."""
    text = _decode(head[:_LOOKED_AT].rstrip(b"\0"))
    if text is None or not _has_no_nul(path, head):
        return ""
    low = name.lower()
    return _script(text, low) or _marked_up(text, path, low) or _format(text, path, low)


def _decode(head: bytes) -> str | None:
    for bom, encoding in _BOMS:
        if head.startswith(bom):
            return head[len(bom) :].decode(encoding, "replace")
    if b"\0" in head:
        return _decode_wide(head)
    if len(head.translate(None, _NO_TEXT)) != len(head):
        return None
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        # Every byte but the controls is a letter in one of the old one-byte alphabets.
        return head.decode("cp1251", "replace")


def _decode_wide(head: bytes) -> str | None:
    """UTF-16 without its mark: every second byte is almost always the same few."""
    even, odd = head[0::2], head[1::2]
    for encoding, high in (("utf-16-le", odd), ("utf-16-be", even)):
        if sum(high.count(b) for b in b"\0\4") > 0.9 * len(high):
            text = head[: len(head) & ~1].decode(encoding, "replace")
            if not any(ord(c) < 32 and ord(c) not in _TEXT_CONTROLS for c in text):
                return text
    return None


def _has_no_nul(path: Path, head: bytes) -> bool:
    """A text is one to its end (some writers pad that with zeros), unless it is UTF-16 or -32."""
    if b"\0" in head[:4096] or any(head.startswith(bom) for bom, _ in _BOMS[1:]):
        return True
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        at = data.find(b"\0")
        return at < 0 or (len(data) - at <= _PADDING_MAX and not data[at:].strip(b"\0"))


def _script(text: str, name: str) -> str:
    start = text[:200].lstrip("\ufeff")
    if found := _SHEBANG.match(start + "\n"):
        tool = (found[2] or "") if found[1] == "env" else found[1]
        kinds = (kind for word, kind in _INTERPRETERS if tool.startswith(word))
        return next(kinds, "text/x-shellscript")
    # At the start of a line: a letter that tells of it has words before.
    if re.search(r"^\s*<\?php\b", start, re.IGNORECASE | re.MULTILINE):
        return "text/x-php"
    if name.endswith((".md", ".rst")):
        # Pages about programs are full of them, and no system runs a page.
        return ""
    lines = [line for line in text[:_LOOKED_AT].splitlines()[:_LINES_LOOKED_AT] if line.strip()]
    for type_, statement in _STATEMENTS.items():
        said = sum(1 for line in lines if statement.match(line[:2000]))
        enough = max(1, _STATEMENTS_SHARE * len(lines))
        if said >= enough and _SURE[type_].search(text):
            return type_
    return ""


def _marked_up(text: str, path: Path, name: str) -> str:
    start = text.lstrip("\ufeff")
    root = _ROOT.match(start[:65_536])
    if root is None:
        return HTML if _HTML_MARKS.search(start[:1024]) else ""
    word = root[2].lower()
    if word == "svg":
        return SVG
    if word in ("job", "package", "component", "scriptlet") and "<script" in start.lower():
        return "application/x-ms-script-component"
    is_data = start.startswith("<?xml") or name.endswith(".xml")
    if word in _PAGE_ROOTS or (word in _HTML_ROOTS and not is_data):
        return HTML
    if "http://www.w3.org/1999/xhtml" in start[:4096] and _HTML_MARKS.search(start):
        return HTML
    if root[2] == "КоммерческаяИнформация":
        return "application/x-commerceml"
    if word == "yml_catalog":
        return "application/x-yml-catalog"
    if word == "document" and "urn:iso:std:iso:20022" in start[:8192]:
        return "application/x-camt"
    return XML if _closes(path, start) else PLAIN


def _closes(path: Path, start: str) -> bool:
    """A text that merely begins with `<` is no XML: that one begins and ends with a tag."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 512))
        return start.startswith("<?xml") or file.read().rstrip(b"\0\r\n\t \x1a").endswith(b">")


def _format(text: str, path: Path, name: str) -> str:
    start = text.lstrip("\ufeff \r\n\t")[:4096]
    if start.startswith("1CClientBankExchange"):
        return "text/x-1c-client-bank"
    if re.search(r"^(?:\{4:\r?\n)?:20:", start, re.MULTILINE) and ":25:" in start:
        return "text/x-mt940"
    if start.startswith("OFXHEADER") or "<OFX>" in start[:2048]:
        return "text/x-ofx"
    if start.startswith(("BEGIN:VCALENDAR", "BEGIN:VCARD")):
        return "text/calendar" if start.startswith("BEGIN:VCAL") else "text/vcard"
    if start[:1] in "{[" and _is_json(text, path):
        return JSON
    if name.endswith(".eml") and re.match(r"[A-Za-z-]+: ", start):
        return "message/rfc822"
    return CSV if name.endswith((".csv", ".tsv")) or _is_table(text) else PLAIN


def _is_json(text: str, path: Path) -> bool:
    if path.stat().st_size > _JSON_BYTES_MAX:
        return bool(re.match(r'\s*[\[{]\s*(?:["{\[\]}]|-?\d|true|false|null)', text))
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _is_table(text: str) -> bool:
    """Whether the first lines have one separator, each as often."""
    lines = [line for line in text[:16_384].splitlines()[:20] if line.strip()]
    if len(text) > 16_384:
        lines.pop()
    return len(lines) > 1 and any(
        lines[0].count(mark) and all(line.count(mark) == lines[0].count(mark) for line in lines)
        for mark in ",;\t|"
    )
