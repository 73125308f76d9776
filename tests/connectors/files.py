"""Price lists as suppliers make them, written by a library that is not the reader's."""

import xlsxwriter


def workbook(path, write):
    """An XLSX; `write(book, sheet)` fills its first sheet."""
    book = xlsxwriter.Workbook(str(path))
    write(book, book.add_worksheet("Прайс"))
    book.close()
    return path


def supplier_list(path):
    """A preamble, a header of two rows under a merge, groups, formats, words for prices."""

    def write(book, sheet):
        code, usd = (
            book.add_format({"num_format": "00000"}),
            book.add_format({"num_format": '#,##0.00 "грн"'}),
        )
        sheet.merge_range("A1:F1", "ТОВ Постачальник, ціни на 21.11.2026")
        sheet.write_row("A3", ["Артикул", "Найменування", "Од.", "Ціна", "", "Залишок"])
        sheet.merge_range("D3:E3", "Ціна")
        sheet.write_row("D4", ["роздріб", "гурт"])
        sheet.write("A5", "Болти")
        rows = [(100, "Болт М6", "шт", 12.5, 11, ">10"), (101, "Болт М8", "шт", 14.75, 13.2, 40)]
        for n, row in enumerate(rows, 5):
            sheet.write_row(n, 0, row)
            sheet.write(n, 0, row[0], code)
            sheet.write(n, 3, row[3], usd)
        sheet.write("A8", "Гайки")
        sheet.write_row("A9", [102, "Гайка М6", "шт", "по запиту", -1, "немає"])
        sheet.write("A9", 102, code)
        sheet.write_row("A10", ["", "Разом", "", 100, 100, ""])

    return workbook(path, write)
