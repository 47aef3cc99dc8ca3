"""A document as one page of HTML: prints on A4, reads on a phone, loads nothing. Pure but for its template."""

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from billing.documents.invoice import NO_IRN, Document
from billing.gst.rupees import rupees

_TEMPLATES = Path(__file__).parent / "templates"


def render_html(document: Document) -> str:
    """The page; every text in it is escaped."""
    return _template().render(document=document, total=rupees(document.total_paise), no_irn=NO_IRN)


@cache
def _template() -> Template:
    loader = FileSystemLoader(_TEMPLATES)
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined).get_template("document.html")
