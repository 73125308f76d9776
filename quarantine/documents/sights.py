"""What can be seen in an office file: stable codes with a sentence each, and where it was seen."""

from __future__ import annotations

import msgspec

SENTENCES = {
    "office.vba": "It holds a VBA macro.",
    "office.xlm": "It holds an Excel 4 macro sheet.",
    "office.macro": "It holds a macro, or calls one when it is opened or clicked.",
    "office.dde": "It holds a data link (DDE), which starts another program.",
    "office.package": "A file or program is packed inside as an object.",
    "office.activex": "It holds an ActiveX control.",
    "office.flash": "It holds a Flash film.",
    "office.rtf_object": "It holds an embedded object, which text documents hardly ever do.",
    "office.object_update": "It opens its embedded object by itself.",
    "office.external_template": "It loads a template from another host when it is opened.",
    "office.external_object": "It loads an object, a frame or a text from another host.",
    "office.external_picture": "It loads a picture from a file server, which betrays a password.",
    "office.link_scheme": "A link starts a program instead of a page.",
    "office.action": "A click on a slide starts a program or a macro.",
    "office.custom_ui": "It changes the menus and runs something when it is opened.",
    "office.encrypted": "It is encrypted, so that nobody else can look into it.",
    "office.dtd": "A part of it declares a document type, which such parts never do.",
    "office.broken": "It cannot be read as the sort of document that it seems to be.",
    "text.dde": "A cell holds a formula that starts another program (DDE).",
}


class Sight(msgspec.Struct, frozen=True):
    """One thing that was seen: its code, and the part of the file (empty for the whole)."""

    code: str
    part: str = ""
