"""Whether the first bytes of a file look like a price list: a workbook may, a text has to say so."""

from __future__ import annotations

from connectors.formats.encoding import detect_encoding
from connectors.formats.text_table import find_delimiter
from connectors.sdk.contract import Refused
from connectors.systems.price_list.words import rate_header

_LINES = 40
_WORKBOOK = 0.4
_MARKS = (b"\xd0\xcf\x11\xe0", b"\x09\x08", b"\x09\x04")
_SPREADSHEET = (b"[content_types].xml", b"mimetypeapplication/vnd.oasis.opendocument.spreadsheet")


def rate_head(head: bytes) -> float:
    """0 to 1; more than half only where a line names a price and a thing."""
    low = head[:4_096].lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    if head.startswith(b"PK\x03\x04"):
        return _WORKBOOK if any(m in low for m in _SPREADSHEET) or b"xl/" in low else 0.0
    if head.startswith(_MARKS) or b"office:spreadsheet" in low:
        return _WORKBOOK
    if low.startswith(b"<"):
        return 0.3 if b"<table" in head.lower() else 0.0
    try:
        text = head.decode(detect_encoding(head), "ignore")
    except Refused:
        return 0.0
    delimiter = find_delimiter(text)
    lines = [line for line in text.splitlines()[:_LINES] if line.strip()]
    for line in lines:
        fields = [f.strip(" \"'\ufeff")[:100] for f in line[:4_000].split(delimiter)]
        if len(fields) > 1 and _says(fields, "price") and _says(fields, "name", "sku", "barcode"):
            return 0.6
    return 0.1 if lines and sum(delimiter in line for line in lines) >= 0.8 * len(lines) else 0.0


def _says(fields: list[str], *targets: str) -> bool:
    return any(rate_header(f, t)[0] >= 0.7 for f in fields if f for t in targets)
