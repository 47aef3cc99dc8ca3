"""The payer of a payment link in the form that Razorpay accepts: 3 to 50 ASCII letters, digits and `. ' / @ ( )`.

A name with too little left, such as one in Devanagari, is omitted: a payment link needs none. The bill keeps the legal
name unchanged. Source: razorpay.com/docs, "Create a Customer".
"""

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

_LEAST, _MOST = 3, 50
_NOT_TAKEN = re.compile(r"[^A-Za-z0-9.'/@() ]+")


def payer(customer: Mapping[str, Any]) -> dict[str, str]:
    """The `customer` of a payment link, from the bill's copy of the customer."""
    name = payer_name(str(customer.get("legal_name") or ""))
    known = {"name": name, "email": customer.get("email"), "contact": customer.get("contact")}
    return {field: str(value) for field, value in known.items() if value}


def payer_name(legal_name: str) -> str | None:
    """The name without accents and with `&` spelled out; None if it then has too few characters for Razorpay."""
    spelled = legal_name.replace("&", " and ").replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    letters = "".join(char for char in unicodedata.normalize("NFKD", spelled) if not unicodedata.combining(char))
    name = " ".join(_NOT_TAKEN.sub(" ", letters).split())[:_MOST].strip()
    return name if sum(char.isalnum() for char in name) >= _LEAST else None
