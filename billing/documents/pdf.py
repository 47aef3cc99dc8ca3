"""A document as an A4 PDF with repeated table headings, by ReportLab, which needs no system libraries.

The font (Source Sans Pro, from a wheel) has the rupee sign, Latin, Greek and Cyrillic. A missing character is printed
as its code point, such as [U+0928], and a note refers to the HTML page, whose browser has more fonts.
"""

from collections.abc import Sequence
from functools import cache
from io import BytesIO
from pathlib import Path
from xml.sax.saxutils import escape

import font_source_sans_pro  # type: ignore[import-untyped]  # it ships no types
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.pdfmetrics import stringWidth
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import (
    BaseDocTemplate,
    Flowable,
    Frame,
    Image,
    KeepTogether,
    PageTemplate,
    Paragraph,
    Spacer,
    Table,
    TableStyle,
)

from billing.documents.invoice import NO_IRN, Document, Party
from billing.documents.logo import Logo
from billing.documents.qr import qr_drawing
from billing.gst.rupees import rupees

_MARGIN = 14 * mm
_WIDTH = A4[0] - 2 * _MARGIN
_SIZES = (9, 8, 7, 6, 5)
_PADDING = 13
"""Of a cell, both sides together, in points."""
_LEAST = 28 * mm
"""Minimum width of the description."""
_CODE = 30 * mm
"""Side of the QR code."""
_LOGO = (60 * mm, 18 * mm)
_FONTS = Path(font_source_sans_pro.font_directory)
_PLAIN, _BOLD = "NakaSans", "NakaSansBold"
_GREY = colors.HexColor("#555555")
_LINE = colors.HexColor("#cccccc")
_RED = colors.HexColor("#a00000")
_BODY = ParagraphStyle("body", fontName=_PLAIN, fontSize=9, leading=12)
_SMALL = ParagraphStyle("small", parent=_BODY, fontSize=7.5, leading=10, textColor=_GREY)
_RIGHT = ParagraphStyle("right", parent=_BODY, alignment=2)
_HEAD = ParagraphStyle("head", parent=_BODY, fontName=_BOLD, fontSize=18, leading=22)
_STRONG = ParagraphStyle("strong", parent=_BODY, fontName=_BOLD)
_STRONG_RIGHT = ParagraphStyle("strong right", parent=_STRONG, alignment=2)
_CELL_HEAD = ParagraphStyle("cell head", parent=_RIGHT, fontName=_BOLD, fontSize=7.5, leading=9)
_LEFT_HEAD = ParagraphStyle("left", parent=_CELL_HEAD, alignment=0)
_BANNER = ParagraphStyle("banner", parent=_STRONG, alignment=1, textColor=_RED, fontSize=11, leading=14)
_ALL = ((0, 0), (-1, -1))
_TIGHT = TableStyle(
    [
        ("LEFTPADDING", *_ALL, 0),
        ("TOPPADDING", *_ALL, 1),
        ("BOTTOMPADDING", *_ALL, 1),
        ("VALIGN", *_ALL, "TOP"),
    ]
)
_RULED = TableStyle(
    [
        ("LINEBELOW", (0, 0), (-1, 0), 0.8, colors.black),
        ("LINEBELOW", (0, 1), (-1, -1), 0.4, _LINE),
        ("VALIGN", *_ALL, "TOP"),
    ]
)
_SUMMED = TableStyle([("LINEBELOW", (0, -1), (-1, -1), 1, colors.black), ("LINEABOVE", (0, -1), (-1, -1), 0.4, _LINE)])
_DASHED = TableStyle([("BOX", *_ALL, 1.2, _RED, None, (3, 2))])
LACKING = "This PDF's font lacks some characters of this document; its HTML page shows them."


def render_pdf(document: Document) -> bytes:
    """The file. Takes about 50 ms of CPU, so call it in a thread."""
    _register()
    out = BytesIO()
    frame = Frame(_MARGIN, _MARGIN + 6 * mm, _WIDTH, A4[1] - 2 * _MARGIN - 6 * mm, 0, 0, 0, 0)
    title = f"{document.title} {document.number}"
    template = BaseDocTemplate(out, pagesize=A4, title=title, author=document.supplier.legal_name, creator="Naka")

    def foot(canvas: Canvas, _: BaseDocTemplate) -> None:
        canvas.setFont(_PLAIN, 7.5)
        canvas.setFillColor(_GREY)
        canvas.drawString(_MARGIN, _MARGIN - 2 * mm, f"{title}. {document.banner}".rstrip(". ") + ".")
        canvas.drawRightString(A4[0] - _MARGIN, _MARGIN - 2 * mm, f"Page {canvas.getPageNumber()}")

    template.addPageTemplates([PageTemplate(frames=[frame], onPage=foot)])
    template.build(_story(document))
    return out.getvalue()


def _story(document: Document) -> list[Flowable]:
    story: list[Flowable] = []
    if document.banner:
        banner = Table([[Paragraph(document.banner, _BANNER)]], colWidths=[_WIDTH], style=_DASHED)
        story += [banner, Spacer(1, 4 * mm)]
    cells = [_party("Supplier", document.supplier), _party("Customer", document.customer)]
    parties = Table([cells], colWidths=[_WIDTH / 2] * 2, style=_TIGHT)
    if document.logo is not None:
        story += [_logo(document.logo), Spacer(1, 3 * mm)]
    story += [Paragraph(document.title, _HEAD), Spacer(1, 4 * mm), parties, Spacer(1, 5 * mm)]
    story += [_facts(document), Spacer(1, 5 * mm), _lines(document), Spacer(1, 3 * mm), _sums(document)]
    story += [Spacer(1, 2 * mm), Paragraph(document.words, _RIGHT), Spacer(1, 5 * mm)]
    if document.pay_url:
        url = _safe(document.pay_url)
        pay = Paragraph(f'Pay {document.due} here: <link href="{url}">{url}</link>', _BODY)
        story.append(KeepTogether([pay, qr_drawing(document.pay_url, _CODE)]))
    story += [Paragraph(_safe(note), _BODY) for note in document.notes]
    story.append(Spacer(1, 6 * mm))
    if any(ord(char) not in _glyphs() for text in _texts(document) for char in text):
        story.append(Paragraph(LACKING, _SMALL))
    story.append(Paragraph(f"This is a computer-generated document and needs no signature. {NO_IRN}", _SMALL))
    return story


def _logo(logo: Logo) -> Image:
    """The logo within its box, in its own proportions."""
    image = Image(BytesIO(logo.content), hAlign="LEFT")
    scale = min(_LOGO[0] / image.imageWidth, _LOGO[1] / image.imageHeight)
    image.drawWidth, image.drawHeight = image.imageWidth * scale, image.imageHeight * scale
    return image


def _party(label: str, party: Party) -> list[Flowable]:
    gstin = f"GSTIN: {party.gstin or 'Unregistered'}"
    return [
        Paragraph(label.upper(), _SMALL),
        Paragraph(_safe(party.legal_name), _STRONG),
        *(Paragraph(_safe(line), _BODY) for line in party.address),
        Paragraph(_safe(gstin), _BODY),
    ]


def _facts(document: Document) -> Table:
    rows = [[Paragraph(label, _SMALL), Paragraph(_safe(value), _BODY)] for label, value in document.facts()]
    return Table(rows, colWidths=[45 * mm, _WIDTH - 45 * mm], style=_TIGHT)


def _lines(document: Document) -> Table:
    columns, shown = document.columns(), document.rows()
    size, widths = _fitting(columns, shown)
    figure = ParagraphStyle("figure", parent=_RIGHT, fontSize=size, leading=size + 3)
    heads = [Paragraph(columns[0], _LEFT_HEAD), *(Paragraph(head, _CELL_HEAD) for head in columns[1:])]
    rows = [[Paragraph(_safe(row[0]), _BODY), *(Paragraph(cell, figure) for cell in row[1:])] for row in shown]
    return Table([heads, *rows], colWidths=widths, repeatRows=1, style=_RULED)


def _fitting(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[float, list[float]]:
    """The largest font size in which no figure wraps, and the column widths; the description gets the rest."""
    for size in _SIZES:
        figures = [_PADDING + _widest(columns[at], [row[at] for row in rows], size) for at in range(1, len(columns))]
        if sum(figures) <= _WIDTH - _LEAST:
            break
    return size, [_WIDTH - sum(figures), *figures]


def _widest(head: str, cells: Sequence[str], size: float) -> float:
    words = [stringWidth(word, _BOLD, _CELL_HEAD.fontSize) for word in head.split()]
    return max(*words, *(stringWidth(cell, _PLAIN, size) for cell in cells), 0)


def _sums(document: Document) -> Table:
    rows = [[Paragraph(label, _RIGHT), Paragraph(amount, _RIGHT)] for label, amount in document.sums()]
    rows.append([Paragraph("Total", _STRONG_RIGHT), Paragraph(rupees(document.total_paise), _STRONG_RIGHT)])
    rows += [[Paragraph(text, _STRONG_RIGHT) for text in row] for row in document.payable()]
    return Table(rows, colWidths=[40 * mm, 35 * mm], hAlign="RIGHT", style=_SUMMED)


def _texts(document: Document) -> list[str]:
    """The texts that people entered."""
    parties = [text for party in (document.supplier, document.customer) for text in (party.legal_name, *party.address)]
    return [
        *parties,
        *(value for _, value in document.facts()),
        *(line.text for line in document.lines),
        *document.notes,
    ]


def _safe(text: str) -> str:
    """Escaped for ReportLab's markup, with missing characters as code points."""
    has = _glyphs()
    return escape("".join(char if ord(char) in has else f"[U+{ord(char):04X}]" for char in text), {'"': "&quot;"})


@cache
def _register() -> None:
    pdfmetrics.registerFont(TTFont(_PLAIN, _FONTS / "SourceSansPro-Regular.ttf"))
    pdfmetrics.registerFont(TTFont(_BOLD, _FONTS / "SourceSansPro-Bold.ttf"))


@cache
def _glyphs() -> frozenset[int]:
    """Characters that both fonts have."""
    plain, bold = (TTFont(name, _FONTS / f"SourceSansPro-{name}.ttf").face.charToGlyph for name in ("Regular", "Bold"))
    return frozenset(plain) & frozenset(bold)
