"""Validation of GSTINs, and GST's state codes. Pure.

A GSTIN is the state's code, the holder's PAN, the number of the registration in that state, a `Z` and a check
character. Only the GST portal knows whether a well-formed one is registered, and to whom; it isn't asked.
"""

import re

STATES = {
    "01": "Jammu and Kashmir",
    "02": "Himachal Pradesh",
    "03": "Punjab",
    "04": "Chandigarh",
    "05": "Uttarakhand",
    "06": "Haryana",
    "07": "Delhi",
    "08": "Rajasthan",
    "09": "Uttar Pradesh",
    "10": "Bihar",
    "11": "Sikkim",
    "12": "Arunachal Pradesh",
    "13": "Nagaland",
    "14": "Manipur",
    "15": "Mizoram",
    "16": "Tripura",
    "17": "Meghalaya",
    "18": "Assam",
    "19": "West Bengal",
    "20": "Jharkhand",
    "21": "Odisha",
    "22": "Chhattisgarh",
    "23": "Madhya Pradesh",
    "24": "Gujarat",
    "26": "Dadra and Nagar Haveli and Daman and Diu",
    "27": "Maharashtra",
    "29": "Karnataka",
    "30": "Goa",
    "31": "Lakshadweep",
    "32": "Kerala",
    "33": "Tamil Nadu",
    "34": "Puducherry",
    "35": "Andaman and Nicobar Islands",
    "36": "Telangana",
    "37": "Andhra Pradesh",
    "38": "Ladakh",
    "97": "Other Territory",
}
"""25 (Daman and Diu, part of 26 since 2020) and 28 (Andhra Pradesh before its division) are no longer used."""

WITHOUT_LEGISLATURE = frozenset({"04", "26", "31", "35", "38", "97"})
"""Union territories that levy UTGST instead of SGST, at the same rate."""

_FORM = re.compile(r"[0-9]{2}[A-Z]{5}[0-9]{4}[A-Z][1-9A-Z]Z[0-9A-Z]")
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class WrongGstin(ValueError):
    """Not a valid GSTIN; the message says why."""


def check_character(first_fourteen: str) -> str:
    """The fifteenth character: base 36, alternating weights 1 and 2, digits of each product added."""
    total = 0
    for position, character in enumerate(first_fourteen):
        product = _DIGITS.index(character) * (1 + position % 2)
        total += sum(divmod(product, 36))
    return _DIGITS[-total % 36]


def checked_gstin(written: str) -> str:
    """The GSTIN in capitals, stripped. Raises WrongGstin."""
    gstin = written.strip().upper()
    if not _FORM.fullmatch(gstin):
        raise WrongGstin("a GSTIN is a state code, a PAN, a registration number, Z and a check character")
    if gstin[:2] not in STATES:
        raise WrongGstin(f"no state has the code {gstin[:2]}")
    if check_character(gstin[:14]) != gstin[14]:
        raise WrongGstin("check it for a typo")
    return gstin


def state_of(gstin: str) -> str:
    """The state code of a checked GSTIN."""
    return gstin[:2]
