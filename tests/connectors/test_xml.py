"""XML of strangers: bounded, in its real encoding, every refusal with its code and place."""

import io
import resource
import socket
import threading
import time

import pytest

from connectors.formats.xml import XmlFile
from connectors.sdk.contract import Refused

RU = "Товар на складе по цене"


def read(data, tags=("b",), **options):
    source = (lambda: io.BytesIO(data)) if isinstance(data, bytes) else data
    file = XmlFile(source, **options)
    return file, [(e.text, file.place_of(e).row) for e in file.iter_elements(*tags)]


def refused(data, **options):
    with pytest.raises(Refused) as caught:
        read(data, **options)
    return caught.value.fault


class Endless(io.RawIOBase):
    """A head, and a piece again and again until `size` bytes: nothing of it is kept here."""

    def __init__(self, head, piece, size):
        self.head, self.piece, self.left = head, piece, size

    def readable(self):
        return True

    def read(self, size=-1):
        if self.head:
            head, self.head = self.head, b""
            return head
        if self.left <= 0:
            return b""
        self.left -= len(self.piece)
        return self.piece


@pytest.mark.parametrize(
    ("declared", "real", "warned"),
    [
        ("UTF-8", "utf-8", False), ("windows-1251", "cp1251", False), ("cp866", "cp866", False),
        ("koi8-r", "koi8-r", False), ("UTF-16", "utf-16", False), ("UTF-8", "cp1251", True),
        ("windows-1251", "utf-8", True), ("windows-1251", "cp866", True), ("nonsense", "utf-8", False),
    ],
)  # fmt: skip
def test_encodings_that_tell_the_truth_and_that_lie(declared, real, warned):
    text = f'<?xml version="1.0" encoding="{declared}"?>\n<a><b>{RU}</b></a>'
    file, found = read(text.encode(real))
    assert found == [(RU, 2)]
    assert [w.code for w in file.warnings] == (["encoding-mismatch"] if warned else [])


def test_an_encoding_that_shows_late():
    text = (
        '<?xml version="1.0" encoding="UTF-8"?><a>' + "<c>plain</c>\n" * 20_000 + f"<b>{RU}</b></a>"
    )
    file, found = read(text.encode("cp1251"))
    assert found == [(RU, 20_001)] and file.head.encoding == "cp1251"


def test_a_person_chooses_the_encoding():
    _, found = read(f"<a><b>{RU}</b></a>".encode("cp866"), encoding="cp866")
    assert found[0][0] == RU


@pytest.mark.parametrize("start", ["\ufeff", "\ufeff\ufeff", "\ufeff \ufeff", " \ufeff", "\n\n"])
def test_marks_at_the_start(start):
    _, found = read((start + '<?xml version="1.0"?><a><b>x</b></a>').encode())
    assert found[0][0] == "x"


def test_a_mark_inside_is_told():
    text = "<a>" + "<c>xyz</c>" * 20_000 + "<b>\ufeffx</b>\ufeff<b>y</b></a>"
    for shift in range(3):
        file, found = read((" " * shift + text).encode())
        assert [f[0] for f in found] == ["x", "y"]
        assert [w.code for w in file.warnings] == ["byte-order-mark"]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "not-this-format"), (b" \n", "not-this-format"), (b"PK\x03\x04zip", "not-this-format"),
        (b"plain text", "not-this-format"), (b"<!DOCTYPE html><html/>", "not-this-format"),
        (b"<html><body>Login</body></html>", "not-this-format"), (b"<z/>", "not-this-format"),
        (b"<a><b>x</b>", "truncated"), (b"<a><b>x</b", "truncated"), (b"<a><b>x</b></a", "truncated"),
        (b"<a", "truncated"), (b"<?xml ", "truncated"), (b'<?xml version="1.0"?>', "truncated"),
        (b"<a><b>x</c></a>", "malformed"), (b"<a/><a/>", "malformed"), (b"<a><b>1 < 2</b></a>", "malformed"),
        (b"<a>\n<b>&mdash;</b></a>", "undefined-entity"),
        (f"<a><b>{RU}".encode() + b"\xff" + f"{RU}</b></a>".encode(), "bad-encoding"),
        (f"<a><b>{RU}".encode()[:-1], "truncated"),
        (b'<!DOCTYPE a SYSTEM "http://127.0.0.1/x.dtd"><a/>', "external-entity"),
        (b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a><b>&x;</b></a>', "external-entity"),
        (b'<!DOCTYPE a [<!ENTITY % x SYSTEM "http://127.0.0.1/">%x;]><a/>', "external-entity"),
        (b'<!DOCTYPE a [<!ENTITY x "y">]><a><b>&x;</b></a>', "entity-expansion"),
        ('<!DOCTYPE a [<!ENTITY x "y">]><a/>'.encode("utf-16"), "entity-expansion"),
    ],
)  # fmt: skip
def test_refusals(data, code):
    assert refused(data, roots=("a",)).code == code


def test_the_place_of_a_refusal():
    fault = refused(b"<a>\n<b>x</b>\n<b>y")
    assert (fault.place.row, fault.place.offset) == (3, 17)
    assert (
        refused(
            b"<a>\n<b>&mdash;</b></a>",
        ).place.row
        == 2
    )
    assert refused(f"<a><b>{RU}".encode() + b"\xff</b></a>").place.offset == 6 + len(RU.encode())


def test_a_doctype_line_is_passed_over_where_it_is_allowed():
    data = b'<?xml version="1.0"?>\n<!DOCTYPE a\n SYSTEM "shops.dtd">\n<a>\n<b>x</b></a>'
    _, found = read(data, allow_doctype=True)
    assert found == [("x", 5)]
    bomb = b'<!DOCTYPE a SYSTEM "shops.dtd" [<!ENTITY x "y">]><a/>'
    assert refused(bomb, allow_doctype=True).code == "entity-expansion"
    lost = data.replace(b"<b>x", b"<b>&mdash;")
    assert refused(lost, allow_doctype=True).code == "undefined-entity"


def test_nothing_is_fetched():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.3)
        called = []
        thread = threading.Thread(target=lambda: called.append(_accept(server)))
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x"
        data = (
            f'<?xml version="1.0"?><?xml-stylesheet href="{url}"?><a xmlns:xi="http://www.w3.org/2001/XInclude" '
            'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
            f'xsi:schemaLocation="{url} {url}"><xi:include href="{url}"/><b>x</b></a>'
        )
        assert read(data.encode())[1][0][0] == "x"
        assert refused(f'<!DOCTYPE a SYSTEM "{url}"><a/>'.encode()).code == "external-entity"
        thread.join()
    assert called == [False]


def _accept(server):
    try:
        server.accept()
    except TimeoutError:
        return False
    return True


@pytest.mark.parametrize(
    ("head", "piece", "code"),
    [
        (b"<a><b>", b"x" * 65_536, "too-large-node"),
        (b"<a><b><![CDATA[", b"x<" * 32_768, "too-large-node"),
        (b"<a><b><!--", b"x " * 32_768, "too-large-node"),
        (b"<a><b ", b"".join(b'a%06d="" ' % n for n in range(6_000)), "too-large-node"),
        (b"<a><b>", b"<c/>" * 16_384, "too-large-node"),
        (b"<a><b>", b"<c>" * 20_000, "too-deep"),
        (b"<!-- ", b"x" * 65_536, "too-large-node"),
    ],
)  # fmt: skip
def test_a_gigabyte_is_refused_within_bounds(head, piece, code):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    assert refused(lambda: Endless(head, piece, 1 << 30)).code == code
    assert time.process_time() - began < 2
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 200_000, grown


def test_control_characters_are_shown_to_the_reader():
    file, found = read(b"<a><b>x\x01y</b><b>z</b></a>")
    assert found == [("x\N{REPLACEMENT CHARACTER}y", 1), ("z", 1)] and file.has_controls


def test_what_is_in_a_whole_element_is_left_to_it():
    data = b"<a><b>1</b><w><b>2</b><b>3</b></w><b>4</b></a>"
    file = XmlFile(lambda: io.BytesIO(data))
    told = [(e.tag, [c.text for c in e]) for e in file.iter_elements("b", "w", whole=("w",))]
    assert told == [("b", []), ("w", ["2", "3"]), ("b", [])]
