"""A document as one HTML page that prints on A4, fits a phone and loads nothing. Pure, but for its template."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from billing.documents.invoice import NO_IRN, Document
from billing.documents.qr import qr_path
from billing.gst.rupees import rupees

_LOADER = FileSystemLoader(Path(__file__).parent / "templates")
_ENVIRONMENT = Environment(loader=_LOADER, autoescape=True, undefined=StrictUndefined)


def render_html(document: Document) -> str:
    """The page, with every text escaped."""
    page = _ENVIRONMENT.get_template("document.html")
    code = None if document.pay_url is None else qr_path(document.pay_url)
    return page.render(document=document, total=rupees(document.total_paise), no_irn=NO_IRN, code=code)
