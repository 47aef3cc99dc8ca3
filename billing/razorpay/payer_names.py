"""Whom Razorpay writes to, in the form that it takes: a name of 3 to 50 ASCII letters, digits and `. ' / @ ( )`.

The bill keeps the legal name as it is; only the payer's name on Razorpay's page is simplified. A name with too little
left, such as one in Devanagari, is left out: a payment link needs none, and the e-mail address says who it is.
Source: facts/razorpay.md, 2.1; razorpay.com/docs, "Create a Customer".
"""

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

_LEAST, _MOST = 3, 50
_NOT_TAKEN = re.compile(r"[^A-Za-z0-9.'/@() ]+")


def payer(customer: Mapping[str, Any]) -> dict[str, str]:
    """The `customer` of a payment link, from the customer as it was copied onto the bill."""
    name = payer_name(str(customer.get("legal_name") or ""))
    known = {"name": name, "email": customer.get("email"), "contact": customer.get("contact")}
    return {field: str(value) for field, value in known.items() if value}


def payer_name(legal_name: str) -> str | None:
    """The name without accents, `&` in words and the rest left out; None when less than Razorpay takes is left."""
    spelled = legal_name.replace("&", " and ").replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    letters = "".join(char for char in unicodedata.normalize("NFKD", spelled) if not unicodedata.combining(char))
    name = " ".join(_NOT_TAKEN.sub(" ", letters).split())[:_MOST].strip()
    return name if sum(char.isalnum() for char in name) >= _LEAST else None
