"""Everyday documents, made by code: each must pass every engine without a finding.

They hold what honest files hold and careless checks take for an attack: links, charts, pictures,
pivot tables, links between workbooks, document types, scripts in pages, formulas, bars and signs.
"""

import io
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import openpyxl
import pikepdf
import xlsxwriter
from openpyxl.chart import BarChart, Reference
from openpyxl.drawing.image import Image as Drawing
from PIL import Image
from pikepdf import Array, Dictionary, Name, String

from tests.quarantine.office_files import (
    CT,
    HEAD,
    PAINT_CLSID,
    compound,
    field,
    open_document,
    other_book,
    package,
    relations,
    rtf,
    word,
    workbook,
    workbook_link,
)
from tests.quarantine.other_files import (
    PACKED,
    annotation,
    content,
    form,
    link,
    noise,
    noisy,
    opens,
    pdf,
    picture,
    svg,
    text,
)


class Benign(NamedTuple):
    name: str
    make: Callable[[Path], object]
    file: str
    type: str = "application/octet-stream"


def book(fill):
    """A workbook of xlsxwriter, filled by a function of book and sheet."""

    def make(path: Path) -> None:
        with xlsxwriter.Workbook(path) as made:
            sheet = made.add_worksheet("Прайс")
            sheet.write_row(0, 0, ["Артикул", "Цена", "Остаток"])
            fill(made, sheet)

    return make


def chart(made, sheet):
    sheet.write_column(1, 1, range(10))
    drawn = made.add_chart({"type": "line"})
    drawn.add_series({"values": "=Прайс!$B$2:$B$11"})
    sheet.insert_chart("E2", drawn)


def pictures(made, sheet):
    buffer = io.BytesIO()
    noise((60, 40)).save(buffer, "PNG")
    sheet.insert_image("E2", "a.png", {"image_data": buffer, "url": "https://shop.example/p/1"})


def links(made, sheet):
    sheet.write_url("A2", "https://shop.example/?a=1&b=2", string="Товар")
    sheet.write_url("A3", "mailto:office@shop.example")
    sheet.write_url("A4", "internal:Прайс!A1")
    sheet.write_url("A5", "external:c:\\prices\\list.xlsx")
    sheet.write_url("A6", "external:\\\\server\\share\\list.xlsx")


def decorated(made, sheet):
    sheet.add_table("A3:C9")
    sheet.write_comment("A1", "см. DDE и =cmd|")
    sheet.data_validation("D1", {"validate": "list", "source": ["да", "нет"]})
    sheet.conditional_format("B2:B9", {"type": "3_color_scale"})
    sheet.insert_textbox("F2", "Скидка 10 %")
    sheet.insert_button("G2", {"caption": "Печать"})
    sheet.insert_checkbox("H2", True)
    sheet.autofilter("A1:C1")


def formulas(made, sheet):
    sheet.write_formula("D2", '=IF(B2>0,"да|нет!",SUM(B2:B9))')
    sheet.write_formula("D3", "='[prices.xlsx]Sheet1'!A1")
    sheet.write_formula("D4", '=HYPERLINK("https://shop.example","сайт")')
    made.define_name("Auto_price", "=Прайс!$B$2")


def many_rows(made, sheet):
    for row in range(1, 3000):
        sheet.write_row(row, 0, [f"A-{row}", row * 1.5, "DDE instrText oleObject"])


def with_openpyxl(path: Path) -> None:
    made = openpyxl.Workbook()
    sheet = made.active
    for row in range(1, 20):
        sheet.append([row, row * 2])
    drawn = BarChart()
    drawn.add_data(Reference(sheet, min_col=2, min_row=1, max_row=19))
    sheet.add_chart(drawn, "E2")
    buffer = io.BytesIO()
    noise((30, 20)).save(buffer, "PNG")
    sheet.add_image(Drawing(buffer), "E20")
    sheet["A1"].hyperlink = "https://shop.example"
    made.save(path)


def docx(body, **more):
    return package("docx", word(body), **more)


def settings(target):
    rels = relations(("attachedTemplate", target, "External"))
    return docx("<w:p/>", parts={"word/_rels/settings.xml.rels": rels})


PIVOT = package(
    "xlsx", f"{HEAD}<workbook/>", rels=[("pivotCacheDefinition", "pivotCache/pivotCacheDefinition1.xml")],
    parts={"xl/pivotCache/pivotCacheDefinition1.xml": f"{HEAD}<pivotCacheDefinition><cacheSource type='worksheet'/></pivotCacheDefinition>"},
)  # fmt: skip
CONTROLS = package(
    "xlsx", f"{HEAD}<workbook/>", rels=[("ctrlProp", "ctrlProps/ctrlProp1.xml"), ("printerSettings", "printerSettings/printerSettings1.bin")],
    parts={"xl/ctrlProps/ctrlProp1.xml": f"{HEAD}<formControlPr/>", "xl/printerSettings/printerSettings1.bin": bytes(range(256)) * 8},
    defaults={"bin": CT + "spreadsheetml.printerSettings"},
)  # fmt: skip
EXTERNAL_BOOK = workbook_link(
    f'{HEAD}<externalLink xmlns:r="r"><externalBook r:id="rId1"><sheetNames/></externalBook></externalLink>'
)
EQUATION = docx(
    '<w:p><w:r><w:object><o:OLEObject xmlns:o="o" ProgID="Excel.Sheet.12" r:id="rId1"/></w:object></w:r></w:p>',
    rels=[("package", "embeddings/Microsoft_Excel_Sheet1.xlsx")],
)
SLIDES = package(
    "pptx", f"{HEAD}<p:presentation xmlns:p='p'/>", parts={
        "ppt/slides/slide1.xml": f'{HEAD}<p:sld xmlns:p="p" xmlns:a="a"><a:hlinkClick action="ppaction://hlinksldjump"/></p:sld>',
        "ppt/slides/_rels/slide1.xml.rels": relations(("hyperlink", "https://shop.example", "External"), ("slideLayout", "../slideLayouts/slideLayout1.xml")),
    },
)  # fmt: skip
LINKED_CHART = package(
    "pptx", f"{HEAD}<p:presentation xmlns:p='p'/>",
    parts={"ppt/charts/_rels/chart1.xml.rels": relations(("oleObject", "file:///C:\\reports\\sales.xlsx", "External"))},
)  # fmt: skip

WORD_2003 = (
    '<?xml version="1.0" encoding="UTF-8"?><?mso-application progid="Word.Document"?>'
    '<w:wordDocument xmlns:w="http://schemas.microsoft.com/office/word/2003/wordml"><w:body/></w:wordDocument>'
)
EXCEL_2003 = (
    '<?xml version="1.0" encoding="windows-1251"?><?mso-application progid="Excel.Sheet"?>'
    '<Workbook xmlns="urn:schemas-microsoft-com:office:spreadsheet" xmlns:ss="urn:schemas-microsoft-com:office:spreadsheet">'
    '<Row><Cell ss:Formula="=IF(RC[-1]&gt;0,&quot;да|нет!&quot;,1)"/><Cell>Остаток|склад!</Cell></Row></Workbook>'
)
FLAT = (
    '<?xml version="1.0"?><office:document xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0">'
    "<office:body/></office:document>"
)
VML = '<xml xmlns:v="urn:schemas-microsoft-com:vml" xmlns:o="urn:schemas-microsoft-com:office:office"><br></xml>'
WEB_ARCHIVE = 'MIME-Version: 1.0\nContent-Type: multipart/related; boundary="b"\n\n--b\nContent-Type: text/html\n\n<p>a\n--b--\n'

OFFICE = [
    Benign("word 2003 xml", text(WORD_2003), "a.xml"),
    Benign("excel 2003 xml", text(EXCEL_2003, "cp1251"), "a.xls"),
    Benign("flat open document", text(FLAT), "a.fodt"),
    Benign("drawing of a workbook", text(VML), "vmlDrawing1.vml"),
    Benign("web archive", text(WEB_ARCHIVE), "a.mht"),
    Benign("workbook", book(lambda b, s: None), "a.xlsx"),
    Benign("workbook with a chart", book(chart), "a.xlsx"),
    Benign("workbook with pictures", book(pictures), "a.xlsx"),
    Benign("workbook with links", book(links), "a.xlsx"),
    Benign("workbook with tables and comments", book(decorated), "a.xlsx"),
    Benign("workbook with formulas", book(formulas), "a.xlsx"),
    Benign("workbook of many rows", book(many_rows), "a.xlsx"),
    Benign("workbook of openpyxl", with_openpyxl, "a.xlsx"),
    Benign("workbook with a pivot cache", PIVOT, "a.xlsx"),
    Benign("workbook with form controls", CONTROLS, "a.xlsx"),
    Benign("workbook linked to another", EXTERNAL_BOOK, "a.xlsx"),
    Benign("text with an embedded table", EQUATION, "a.docx"),
    Benign("slides", SLIDES, "a.pptx"),
    Benign("slides with a linked chart", LINKED_CHART, "a.pptx"),
    Benign("text", docx("<w:p/>"), "a.docx"),
    Benign("text with a link", docx("<w:p/>", rels=[("hyperlink", "https://shop.example/?q=a", "External"), ("hyperlink", "tel:+380441234567", "External")]), "a.docx"),
    Benign("text with a link to a file", docx("<w:p/>", rels=[("hyperlink", "file:///\\\\server\\share\\a.docx", "External")]), "a.docx"),
    Benign("text with a linked picture", docx("<w:p/>", rels=[("image", "https://shop.example/logo.png", "External")]), "a.docx"),
    Benign("text with a template of its own", settings("file:///C:\\Users\\a\\Templates\\letter.dotx"), "a.docx"),
    Benign("text with page numbers", docx(field(" PAGE ") + field("TOC \\o &quot;1-3&quot; \\h")), "a.docx"),
    Benign("text with a link field", docx(field('HYPERLINK "https://shop.example"')), "a.docx"),
    Benign("text with merge fields", docx(field("MERGEFIELD Адрес \\* MERGEFORMAT") + field('IF 1 = 1 "DDE" "DDEAUTO"')), "a.docx"),
    Benign("text about dde", docx("<w:p><w:r><w:t>DDEAUTO cmd.exe и ddeLink</w:t></w:r></w:p>"), "a.docx"),
    Benign("old workbook", compound({"Workbook": workbook()}), "a.xls"),
    Benign("old workbook linked to another", compound({"Workbook": workbook(external=other_book())}), "a.xls"),
    Benign("old text", compound({"WordDocument": bytes(600) + b"\x13 PAGE \x14 1 \x15" + bytes(60)}), "a.doc"),
    Benign("old text with a link", compound({"WordDocument": bytes(600) + '\x13HYPERLINK "https://dde.example"\x14a\x15'.encode("utf-16-le")}), "a.doc"),
    Benign("old text with a drawing of paint", compound({"WordDocument": bytes(600), "ObjectPool/_1/\x01Ole10Native": bytes(200)}, {"ObjectPool/_1": PAINT_CLSID}), "a.doc"),
    Benign("rich text", rtf(rb"{\b Hello}\par \'cf\'f0\'e8\'e2\'e5\'f2"), "a.rtf"),
    Benign("rich text with a picture", rtf(rb"{\pict\pngblip 89504e470d0a1a0a0000}"), "a.rtf"),
    Benign("rich text with a link", rtf(rb'{\field{\*\fldinst HYPERLINK "https://shop.example"}{\fldrslt a}}'), "a.rtf"),
    Benign("rich text with a template of its own", rtf(rb"{\*\template C:\\Users\\a\\Normal.dotm}"), "a.rtf"),
    Benign("open text", open_document("text", '<text:a xlink:href="https://shop.example">a</text:a>'), "a.odt"),
    Benign("open text with a table inside", open_document("text", '<draw:object xlink:href="./Object 1"/>'), "a.odt"),
    Benign("open table", open_document("spreadsheet", "<table:table/>", parts={"Configurations2/accelerator/current.xml": ""}), "a.ods"),
    Benign("open table linked to another", open_document("spreadsheet", '<table:table-source xlink:href="../prices.ods"/>'), "a.ods"),
]  # fmt: skip

TABLES = [
    Benign("prices", text("Артикул;Цена\nA-1;10,50\n"), "a.csv", "text/csv"),
    Benign("formulas", text('a,b\n1,=SUM(A1:A9)\n2,"=HYPERLINK(""https://a.example"",""x"")"\n'), "a.csv", "text/csv"),
    Benign("bars and signs", text("a;b\n-10|20!;+380 44 | звоните!\n@shop|скидка!;=1+1\n- S|M|L новинка!;x\n"), "a.csv", "text/csv"),
    Benign("bars without quotes", text("sku|name|note\n1|=new|now!\n-5|a|hot!\n"), "a.csv", "text/csv"),
    Benign("utf-16", text("a\tb\n1\tпривет|мир!\n", "utf-16"), "a.tsv", "text/plain"),
    Benign("sylk", text("ID;PWXL;N;E\nC;X1;Y1;K10\nE\n"), "a.slk", "text/plain"),
    Benign("notes about commands", text("Откройте powershell и наберите: Get-Help. mshta не трогать."), "a.txt", "text/plain"),
    Benign("mail about php", text("В файле index.php стоит <?php echo $title; ?> и eval() там нет."), "a.txt", "text/plain"),
]  # fmt: skip


def pages(count):
    def change(document):
        for _ in range(count):
            document.add_blank_page()

    return change


def go_to(document):
    document.Root.OpenAction = Array([document.pages[0].obj, Name.Fit])


def outlined(document):
    with document.open_outline() as outline:
        outline.root.append(pikepdf.OutlineItem("Глава", 0))


def font_called_aa(document):
    font = Dictionary(Type=Name.Font, Subtype=Name.Type1, BaseFont=Name.Helvetica)
    document.pages[0].Resources = Dictionary(Font=Dictionary(AA=font, JS=font, F1=font))


def described(document):
    with document.open_metadata() as data:
        data["dc:title"] = "Счёт 42 /JavaScript /Launch"


def scan(path: Path) -> None:
    noise().save(path, "PDF", save_all=True, append_images=[noise()])


PDF = [
    Benign(name, make, "a.pdf", "application/pdf")
    for name, make in {
        "page": pdf(),
        "pages": pdf(pages(50)),
        "packed": pdf(pages(50), **PACKED),
        "opens at a page": pdf(go_to),
        "opens by going": pdf(opens(Dictionary(S=Name.GoTo, D=Array([0, Name.Fit])))),
        "link": pdf(link("https://shop.example/a?b=c")),
        "link for mail": pdf(link("mailto:office@shop.example")),
        "link to a page": pdf(annotation(Subtype=Name.Link, Dest=Array([0, Name.Fit]))),
        "note": pdf(annotation(Subtype=Name.Text, Contents=String("JavaScript?"))),
        "form": pdf(form(NeedAppearances=True)),
        "print button": pdf(annotation(Subtype=Name.Widget, A=Dictionary(S=Name.Named, N=Name.Print))),
        "outline": pdf(outlined),
        "names in resources": pdf(font_called_aa),
        "metadata": pdf(described),
        "words in content": pdf(content(b"BT (/JavaScript /Launch /AA) Tj ET"), **PACKED),
        "for the web": pdf(linearize=True),
        "scan": scan,
    }.items()
]  # fmt: skip


def animated(kind):
    def make(path: Path) -> None:
        frames = [Image.new("RGB", (20, 20), (9 * n, 0, 0)) for n in range(12)]
        frames[0].save(path, kind, save_all=True, append_images=frames[1:])

    return make


def photo(path: Path) -> None:
    data = Image.Exif()
    data[0x010F] = "Camera"
    data[0x0112] = 6
    noise((640, 480)).save(path, "JPEG", exif=data, quality=90)


def picture_of(file, make, name=""):
    kind = file.rpartition(".")[2].replace("jpg", "jpeg").replace("tif", "tiff")
    return Benign(name or f"picture {file}", make, file, "image/" + kind)


IMAGES = [
    *[picture_of(f"{n}.{e}", noisy(k)) for n, (e, k) in enumerate(
        {"png": "PNG", "jpg": "JPEG", "gif": "GIF", "webp": "WEBP", "bmp": "BMP", "tif": "TIFF"}.items())],
    *[picture_of("a.png", picture(mode=m), f"png {m}") for m in ("1", "L", "P", "RGBA", "I;16", "LA")],
    picture_of("a.gif", animated("GIF"), "film in gif"),
    picture_of("a.png", animated("PNG"), "film in png"),
    picture_of("a.webp", animated("WEBP"), "film in webp"),
    picture_of("a.tif", animated("TIFF"), "pages in tiff"),
    picture_of("a.jpg", photo, "photo with exif"),
    picture_of("a.jpg", lambda p: noise().convert("CMYK").save(p, "JPEG"), "jpeg for print"),
    picture_of("a.jpg", lambda p: noise().save(p, "JPEG", progressive=True), "progressive jpeg"),
    picture_of("a.png", picture((7_000, 7_000), "L"), "49 megapixels"),
    picture_of("a.tif", picture((2_480, 3_508), "1", compression="group4"), "fax"),
]  # fmt: skip

YML = '<?xml version="1.0" encoding="windows-1251"?><!DOCTYPE yml_catalog SYSTEM "shops.dtd"><yml_catalog date="2026-11-20 10:00"><shop><name>Магазин &amp; Ко</name></shop></yml_catalog>'
CAMT = '<?xml version="1.0" encoding="UTF-8"?><Document xmlns="urn:iso:std:iso:20022:tech:xsd:camt.053.001.08"><BkToCstmrStmt/></Document>'

MARKUP = [
    Benign("yml", text(YML, "cp1251"), "a.yml.xml", "text/xml"),
    Benign("commerceml", text('\ufeff<?xml version="1.0" encoding="UTF-8"?><КоммерческаяИнформация ВерсияСхемы="2.10"/>'), "a.xml", "text/xml"),
    Benign("camt", text(CAMT), "a.xml", "text/xml"),
    Benign("xml in utf-16", text('<?xml version="1.0" encoding="UTF-16"?><a>б</a>', "utf-16"), "a.xml", "text/xml"),
    Benign("xml in koi8", text('<?xml version="1.0" encoding="koi8-r"?><a>б</a>', "koi8-r"), "a.xml", "text/xml"),
    Benign("xml in gb18030", text('<?xml version="1.0" encoding="gb18030"?><a>價</a>', "gb18030"), "a.xml", "text/xml"),
    Benign("xml in an unknown encoding", text('<?xml version="1.0" encoding="USASCII"?><OFX/>'), "a.xml", "text/xml"),
    Benign("xml with elements declared", text("<!DOCTYPE a [<!ELEMENT a (#PCDATA)><!ATTLIST a b CDATA #IMPLIED>]><a b='1'/>"), "a.xml", "text/xml"),
    Benign("xml with named letters", text('<!DOCTYPE a SYSTEM "a.dtd"><a>&nbsp;&copy;</a>'), "a.xml", "text/xml"),
    Benign("xml cut", text("<a><b>1</b><b>2"), "a.xml", "text/xml"),
    Benign("xml with a style sheet", text('<?xml version="1.0"?><?xml-stylesheet type="text/xsl" href="view.xsl"?><a/>'), "a.xml", "text/xml"),
    Benign("drawing", svg('<defs><linearGradient id="a"/></defs><rect fill="url(#a)" style="stroke:red"/><use xlink:href="#a"/>'), "a.svg", "image/svg+xml"),
    Benign("drawing with a link", svg('<a xlink:href="https://shop.example"><text>Магазин</text></a><style>.a{fill:red}</style>'), "a.svg", "image/svg+xml"),
    Benign("drawing with a picture inside", svg('<image href="data:image/png;base64,iVBORw0KGgo="/>'), "a.svg", "image/svg+xml"),
    Benign("drawing with a type", text('<?xml version="1.0"?><!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd"><svg xmlns="http://www.w3.org/2000/svg"/>'), "a.svg", "image/svg+xml"),
    Benign("page", text("<!DOCTYPE html><html><body><p>Привет<br>мир&nbsp;!</body></html>"), "a.html", "text/html"),
    Benign("page with a script", text("<!DOCTYPE html><script>document.title = atob('QQ==')</script><img src='https://shop.example/a.png'>"), "a.html", "text/html"),
    Benign("page of xhtml", text('<?xml version="1.0"?><!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Strict//EN" "http://www.w3.org/TR/xhtml1/DTD/xhtml1-strict.dtd"><html xmlns="http://www.w3.org/1999/xhtml"><script>a()</script></html>'), "a.xhtml", "application/xhtml+xml"),
]  # fmt: skip

BENIGN = OFFICE + TABLES + PDF + IMAGES + MARKUP
