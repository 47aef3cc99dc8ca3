"""Rendered tax invoices and credit notes: figures, escaping, and checked sums."""

import re
from dataclasses import replace
from datetime import date
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pypdf import PdfReader

from billing.documents.html import render_html
from billing.documents.invoice import Document, DocumentLine, DoesNotAddUp, LineKind, PaidNote, Party, percent
from billing.documents.logo import read_logo
from billing.documents.pdf import LACKING, render_pdf
from billing.documents.qr import qr_path
from billing.gst.invoice_numbers import Document as Kind
from billing.gst.invoice_numbers import Mode
from billing.gst.tax import Customer, supply_to, tax_on

SUPPLIER = Party("Naka Cloud Pvt Ltd", ("1 MG Road",), "Bengaluru", "560001", "IN", "29", "29AAGCB7383J1Z4")
CUSTOMER = Party("Nimbus & Söhne", ("2 Marine Drive",), "Mumbai", "400020", "IN", "27", None)


def meter(amount_paise: int = 4_53_827, **changed: Any) -> DocumentLine:
    """A line of output tokens."""
    line = {
        "kind": "meter",
        "meter": "output_tokens",
        "quantity": 1_23_45_678,
        "allowance": 10_00_000,
        "excess": 1_13_45_678,
        "rate_paise": 40_000,
        "unrounded_numerator": 1_13_45_678 * 40_000,
        "earlier_paise": 0,
        "amount_paise": amount_paise,
    }
    return DocumentLine.of(line | changed)


def made(lines: tuple[DocumentLine, ...] = (meter(),), customer: str = "27", **changed: Any) -> Document:
    """A live invoice to a customer in a state."""
    taxable = sum(line.amount_paise for line in lines if line.kind is not LineKind.ROUNDING)
    tax = tax_on(taxable, supply_to(Customer("IN", customer), supplier_state="29", has_lut=False))
    rounding = sum(line.amount_paise for line in lines if line.kind is LineKind.ROUNDING)
    given: dict[str, Any] = {
        "kind": Kind.TAX_INVOICE,
        "mode": Mode.LIVE,
        "number": "INV/2627/0000042",
        "issued_on": date(2026, 11, 23),
        "due_on": date(2026, 11, 30),
        "supplier": SUPPLIER,
        "customer": CUSTOMER,
        "sac": "998315",
        "place_of_supply": "Maharashtra (27)",
        "plan": "Team, version 3",
        "period": (date(2026, 10, 23), date(2026, 11, 22)),
        "lines": lines,
        "taxable_paise": taxable,
        "tax": tax,
        "total_paise": taxable + rounding + sum(line.tax_paise for line in tax),
    }
    return Document(**(given | changed))


def text_of(pdf: bytes) -> list[str]:
    """The text of each page."""
    return [page.extract_text() for page in PdfReader(BytesIO(pdf)).pages]


def test_every_figure_stands_on_both() -> None:
    document = made((meter(earlier_paise=100, amount_paise=453_727), DocumentLine(LineKind.CEILING, "Ceiling", -7_654)))
    (page,) = text_of(render_pdf(document))
    html = re.sub(r"<[^>]+>", " ", render_html(document))
    for shown in (
        "Tax invoice",
        "INV/2627/0000042",
        "23 Nov 2026",
        "29AAGCB7383J1Z4",
        "Unregistered",
        "Karnataka (29)",
        "998315",
        "1,23,45,678",
        "1,13,45,678",
        "₹400.00",
        "₹4,538.2712",
        "₹1.00",
        "₹4,537.27",
        "-₹76.54",
        "₹4,460.73",
        "IGST at 18%",
        "₹802.93",
        "₹5,263.66",
        "Rupees Five Thousand Two Hundred Sixty Three and Sixty Six Paise Only",
        "No e-invoice (IRN)",
    ):
        assert shown in page, shown
        assert shown in html, shown
    assert "NOT A TAX DOCUMENT" not in page + html


def test_a_customer_at_home_sees_both_halves() -> None:
    (page,) = text_of(render_pdf(made(customer="29")))
    assert "CGST at 9%" in page
    assert "SGST at 9%" in page


@pytest.mark.parametrize("mode", [Mode.SANDBOX, Mode.TEST])
def test_what_no_money_stands_behind_says_so(mode: Mode) -> None:
    document = made(mode=mode)
    assert f"{mode.value.upper()} - NOT A TAX DOCUMENT" in text_of(render_pdf(document))[0]
    assert render_html(document).count("NOT A TAX DOCUMENT") == 2, "above it, and on each printed page"


def test_a_hostile_name_is_a_name() -> None:
    name = '<script>alert("1")</script> & \' <b>'
    document = replace(made(), customer=replace(CUSTOMER, legal_name=name), plan=name)
    html = render_html(document)
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert '<script>alert("1")</script>' in text_of(render_pdf(document))[0]


def test_a_script_that_the_font_lacks_is_spelt_and_pointed_out() -> None:
    document = replace(made(), reason="नमस्ते")
    (page,) = text_of(render_pdf(document))
    assert "[U+0928]" in page
    assert LACKING.split(":", 1)[0] in page
    assert "नमस्ते" in render_html(document)
    assert "lacks" not in text_of(render_pdf(made()))[0]


def test_large_figures_stay_whole() -> None:
    big = meter(
        99_99_99_99_999, quantity=123_456_789_012, excess=123_456_789_012, unrounded_numerator=99_999_999_999 * 999_999
    )
    (page,) = text_of(render_pdf(made((big, big))))
    for figure in ("1,23,45,67,89,012", "₹99,99,99,999.99"):
        assert figure in page


def test_sixty_lines_go_over_pages_that_repeat_their_heads() -> None:
    pages = text_of(render_pdf(made(tuple(meter(100 + number) for number in range(60)))))
    assert len(pages) > 1
    assert all("Rate per" in page for page in pages[:-1])
    assert sum(page.count("Output tokens") for page in pages) == 60


def test_a_credit_note_says_what_it_is_against() -> None:
    document = made(
        kind=Kind.CREDIT_NOTE, number="CRN/2627/0000001", refers_to=("INV/2627/0000042",), reason="a credit"
    )
    (page,) = text_of(render_pdf(document))
    assert "Credit note" in page
    assert "INV/2627/0000042" in page
    assert "Credited items" in render_html(document)
    with pytest.raises(DoesNotAddUp):
        made(kind=Kind.CREDIT_NOTE, number="CRN/2627/0000001")


def test_an_export_bears_its_endorsement_and_no_tax() -> None:
    abroad = Party("Acme Inc", ("5th Avenue",), "New York", "10001", "US", None, None)
    document = replace(
        made(),
        customer=abroad,
        tax=(),
        total_paise=453_827,
        place_of_supply="Outside India",
        notes=("Supply meant for",),
    )
    (page,) = text_of(render_pdf(document))
    assert "Supply meant for" in page
    assert "GST at" not in page
    assert abroad.address == ("5th Avenue", "New York 10001", "US")


def test_paid_and_to_be_paid() -> None:
    paid = render_html(replace(made(), paid=PaidNote(date(2026, 11, 24), "pay_1"), due_on=None))
    assert "24 Nov 2026, payment pay_1" in paid
    link = 'href="https://rzp.io/x?a=1&amp;b=2"'
    assert link in render_html(made(pay_url="https://rzp.io/x?a=1&b=2"))
    for unsafe in ("javascript:alert(1)", "http://127.0.0.1/x"):
        with pytest.raises(DoesNotAddUp):
            made(pay_url=unsafe)
    assert made(mode=Mode.SANDBOX, pay_url="http://127.0.0.1/x").pay_url


@pytest.mark.parametrize("changed", [{"taxable_paise": 453_826}, {"total_paise": 535_515}, {"tax": ()}])
def test_what_does_not_add_up_is_not_shown(changed: dict[str, Any]) -> None:
    assert made().total_paise == 535_516
    with pytest.raises(DoesNotAddUp):
        made(**changed)


def test_rounding_comes_after_tax() -> None:
    document = made((DocumentLine(LineKind.PLAN, "Team", 100), DocumentLine(LineKind.ROUNDING, "Rounding", 1)))
    assert document.sums() == [("Taxable value", "₹1.00"), ("IGST at 18%", "₹0.18"), ("Rounding", "₹0.01")]
    assert document.columns() == ("Description", "Amount")
    assert document.rows() == [("Team", "₹1.00")]


def test_rates() -> None:
    assert [percent(rate) for rate in (900, 1_800, 250, 5)] == ["9%", "18%", "2.5%", "0.05%"]


PAY = "https://rzp.io/i/TmA1c9RkVe7"
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108020000009077"
    "53de0000000c49444154789c63f8cfc0000003010100c9fe92ef0000000049454e44ae426082"
)


def test_a_payable_document_has_the_qr_code_of_its_link() -> None:
    side, path = qr_path(PAY)
    page = render_html(made(pay_url=PAY))
    assert f'viewBox="0 0 {side} {side}"' in page
    assert path in page
    assert "<svg" not in render_html(made())
    with_code, without = render_pdf(made(pay_url=PAY)), render_pdf(made())
    assert len(with_code) > len(without)
    assert PAY in "".join(page.extract_text() for page in PdfReader(BytesIO(with_code)).pages)


def test_a_qr_code_has_its_finder_patterns() -> None:
    side, path = qr_path(PAY)
    dark = {tuple(map(int, re.findall(r"\d+", part)[:2])) for part in path.split("M")[1:]}
    last = side - 5
    corners = [(4, 4), (last - 6, 4), (4, last - 6)]
    for left, top in corners:
        ring = {(left + at, top) for at in range(7)} | {(left, top + at) for at in range(7)}
        assert ring <= dark
        assert (left + 1, top + 1) not in dark


def test_the_operators_logo_is_on_it(tmp_path: Path) -> None:
    file = tmp_path / "logo.png"
    file.write_bytes(PIXEL)
    logo = read_logo(file)
    assert logo is not None
    assert logo.url in render_html(made(logo=logo))
    assert len(PdfReader(BytesIO(render_pdf(made(logo=logo)))).pages[0].images) == 1


def test_a_logo_that_is_no_image_or_missing_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "logo.svg").write_text("<svg/>")
    assert read_logo(tmp_path / "logo.svg") is None
    assert read_logo(tmp_path / "none.png") is None
    assert read_logo(None) is None


def test_rests_of_earlier_bills_are_paid_below_the_total() -> None:
    document = made(pay_url=PAY, carried_paise=57, due_paise=100)
    assert document.payable()[0] == ("Rests of earlier bills", "₹0.57")
    page = render_html(document)
    assert "₹0.57" in page
    assert "Pay ₹1.00" in page
