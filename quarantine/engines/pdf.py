"""PDF: what the objects do, found by walking them, not by searching bytes.

Names may be written in hexadecimal and objects may lie in compressed streams; a search for
keywords misses both. Here every object is taken as the library reads it, and a dictionary is judged
by what it would make a reader do: run a script, start a program, reach another file or host, send
what was filled in, open an attachment. A link that somebody clicks on, or opening on page three, is
ordinary. What is locked is held, also with an empty password: no other engine sees into it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pikepdf

from quarantine.contract import Finding, Policy, Verdict
from quarantine.engines.base import Leaf, Unscannable

# The library tells its complaints, with words of the file, to the log of whoever has one.
logging.getLogger("pikepdf").setLevel(logging.CRITICAL + 1)  # noqa: TID251 - silence is no event

OBJECTS_MAX = 2_000_000
DEPTH_MAX = 200
HEAD_BYTES = 1024

_TRIGGERS = {f"/{key}" for key in "E X D U Fo Bl PO PC PV PI O C K F V WC WS DS WP DP".split()}
_MEDIA = {"/RichMedia", "/Screen", "/Movie", "/3D"}
_MEDIA_ACTIONS = {"/Rendition", "/Movie", "/GoTo3DView", "/RichMediaExecute"}
_PLAIN_SCHEMES = ("http:", "https:", "mailto:", "tel:", "sms:", "ftp:", "#")

_SENTENCES = {
    "pdf.javascript": "It holds a script.",
    "pdf.launch": "It starts a program or opens another file.",
    "pdf.open_uri": "It goes to a host by itself when it is opened.",
    "pdf.uri_scheme": "A link runs a script or reaches into a file system instead of a page.",
    "pdf.additional_action": "It acts by itself when a page or a field is shown or changed.",
    "pdf.remote_goto": "It opens another file, perhaps on another host.",
    "pdf.submit_form": "It sends to a host, or takes in, what is filled into its form.",
    "pdf.rich_media": "It plays film, sound, Flash or three-dimensional content.",
    "pdf.xfa": "It holds an XFA form, which has scripts of its own.",
    "pdf.embedded_file": "Another file is attached inside.",
    "pdf.external_stream": "Part of its content lies in another file or on another host.",
    "pdf.encrypted": "It is encrypted, so that nobody else can look into it.",
    "pdf.broken": "It is not a readable PDF.",
}


class PdfEngine:
    """Every object of a PDF once; findings are suspicious, a person decides."""

    name = "pdf"
    version = f"1; pikepdf {pikepdf.__version__}; qpdf {pikepdf.__libqpdf_version__}"

    def wants(self, leaf: Leaf) -> bool:
        """PDF by our detection, by its name, or by a head among the first bytes."""
        if leaf.type == "application/pdf" or leaf.name.lower().endswith(".pdf"):
            return True
        with leaf.path.open("rb") as file:
            head = file.read(HEAD_BYTES)
        return head.lstrip().startswith((b"%PDF-", b"%!PS-Adobe-3.0 PDF"))

    def examine(self, leaf: Leaf, policy: Policy) -> Iterable[Finding]:
        """One finding for each sort of danger. Raises Unscannable when time or size runs out."""
        try:
            with pikepdf.open(leaf.path, suppress_warnings=True) as pdf:
                codes = set(_judge(pdf, time.monotonic() + policy.seconds_max))
        except pikepdf.PasswordError:
            codes = {"pdf.encrypted"}
        except (pikepdf.PdfError, ValueError):
            codes = {"pdf.broken"}
        return [
            Finding(self.name, code, Verdict.SUSPICIOUS, _SENTENCES[code], leaf.place)
            for code in sorted(codes)
        ]


def _judge(pdf: pikepdf.Pdf, deadline: float) -> Iterator[str]:
    if pdf.is_encrypted:
        yield "pdf.encrypted"
    root = pdf.Root
    opening = root.get("/OpenAction")
    if isinstance(opening, pikepdf.Dictionary) and opening.get("/S") == "/URI":
        yield "pdf.open_uri"
    names = root.get("/Names")
    if isinstance(names, pikepdf.Dictionary):
        if "/JavaScript" in names:
            yield "pdf.javascript"
        if "/EmbeddedFiles" in names:
            yield "pdf.embedded_file"
    if "/Collection" in root:
        yield "pdf.embedded_file"
    for thing in _dictionaries(pdf, deadline):
        yield from _look(thing)


def _dictionaries(pdf: pikepdf.Pdf, deadline: float) -> Iterator[Any]:
    """Every dictionary and stream: the indirect objects, and what is nested in each directly."""
    seen = 0
    for top in pdf.objects:
        stack = [(top, 0)]
        while stack:
            thing, depth = stack.pop()
            seen += 1
            if seen > OBJECTS_MAX or depth > DEPTH_MAX:
                raise Unscannable("The PDF has more objects, or deeper ones, than are looked at.")
            if seen % 1000 == 0 and time.monotonic() > deadline:
                raise Unscannable("The PDF took longer than the policy allows.")
            if isinstance(thing, (pikepdf.Dictionary, pikepdf.Stream)):
                yield thing
                inner: Iterable[Any] = thing.values() if _is_dictionary(thing) else _inner(thing)
            elif isinstance(thing, pikepdf.Array):
                inner = thing
            else:
                continue
            stack.extend((child, depth + 1) for child in inner if _is_direct_container(child))


def _is_dictionary(thing: Any) -> bool:
    return isinstance(thing, pikepdf.Dictionary)


def _inner(stream: Any) -> Iterable[Any]:
    return (value for _, value in stream.items())


def _is_direct_container(child: Any) -> bool:
    # An indirect one is met on its own; following it from here would walk in circles.
    kind = isinstance(child, (pikepdf.Dictionary, pikepdf.Array))
    return kind and not child.is_indirect


def _look(thing: Any) -> Iterator[str]:
    keys = set(thing.keys())
    if "/S" in keys:
        yield from _look_at_action(thing)
    elif "/JS" in keys and isinstance(thing["/JS"], pikepdf.String):
        yield "pdf.javascript"
    if "/AA" in keys and _acts(thing["/AA"]):
        yield "pdf.additional_action"
    if "/XFA" in keys and ("/Fields" in keys or "/DA" in keys or _holds_form(thing["/XFA"])):
        yield "pdf.xfa"
    if "/EF" in keys or thing.get("/Type") == "/EmbeddedFile":
        yield "pdf.embedded_file"
    subtype = thing.get("/Subtype")
    if isinstance(subtype, pikepdf.Name):
        if str(subtype) in _MEDIA:
            yield "pdf.rich_media"
        elif subtype == "/FileAttachment":
            yield "pdf.embedded_file"
        elif subtype == "/Form" and isinstance(thing.get("/Ref"), pikepdf.Dictionary):
            yield "pdf.external_stream"
    if isinstance(thing, pikepdf.Stream) and "/F" in keys:
        yield "pdf.external_stream"


def _look_at_action(action: Any) -> Iterator[str]:
    kind = action["/S"]
    name = str(kind) if isinstance(kind, pikepdf.Name) else ""
    if judge := _ACTIONS.get(name):
        yield from judge(action)
    if name in _MEDIA_ACTIONS:
        yield "pdf.rich_media"
    if "/JS" in action:
        yield "pdf.javascript"


def _look_at_link(action: Any) -> Iterator[str]:
    text = str(action.get("/URI", "")).strip().lower()
    scheme, colon, _ = text.partition(":")
    names_host = text.startswith(("\\\\", "//"))
    odd = bool(colon) and scheme.isalnum() and not text.startswith(_PLAIN_SCHEMES)
    if names_host or odd:
        yield "pdf.uri_scheme"


def _always(code: str) -> Callable[[Any], Iterator[str]]:
    return lambda _action: iter((code,))


_ACTIONS: dict[str, Callable[[Any], Iterator[str]]] = {
    "/JavaScript": _always("pdf.javascript"),
    "/Launch": _always("pdf.launch"),
    "/GoToR": _always("pdf.remote_goto"),
    "/GoToE": _always("pdf.remote_goto"),
    "/SubmitForm": _always("pdf.submit_form"),
    "/ImportData": _always("pdf.submit_form"),
    "/URI": _look_at_link,
}


def _acts(triggers: Any) -> bool:
    """Whether /AA is what it looks like: a font may be called so in the resources of a page."""
    if not isinstance(triggers, pikepdf.Dictionary):
        return False
    return any(
        key in _TRIGGERS and isinstance(value, pikepdf.Dictionary) and "/S" in value
        for key, value in triggers.items()
    )


def _holds_form(value: Any) -> bool:
    return isinstance(value, pikepdf.Array) and len(value) > 0


ENGINE = PdfEngine()
