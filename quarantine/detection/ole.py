"""What an OLE file really is, by the streams of its root."""

from __future__ import annotations

from pathlib import Path

import olefile

OLE = "application/x-ole-storage"
ENCRYPTED = "application/encrypted"
_INSTALLERS = frozenset(
    {
        "000C1084-0000-0000-C000-000000000046",
        "000C1086-0000-0000-C000-000000000046",
        "000C1082-0000-0000-C000-000000000046",
    }
)
_BY_STREAM = (
    ("encryptedpackage", ENCRYPTED),
    ("workbook", "application/vnd.ms-excel"),
    ("book", "application/vnd.ms-excel"),
    ("worddocument", "application/msword"),
    ("powerpoint document", "application/vnd.ms-powerpoint"),
    ("visiodocument", "application/vnd.visio"),
    ("__properties_version1.0", "application/vnd.ms-outlook"),
    ("catalog", "application/x-thumbs"),
)


def type_of_ole(path: Path) -> str:
    """The type; plain OLE storage when nothing better is certain or the file is damaged."""
    try:
        with olefile.OleFileIO(str(path)) as ole:
            if str(ole.root.clsid).upper() in _INSTALLERS:
                return "application/x-msi"
            names = {entry[0].lower() for entry in ole.listdir(streams=True, storages=True)}
    except Exception:  # noqa: BLE001 - the library raises what it likes on damaged files
        return OLE
    for stream, type_ in _BY_STREAM:
        if stream in names:
            return type_
    return OLE
