"""CSV for spreadsheets. Programs read JSON.

A file begins with a byte order mark, without which Excel reads UTF-8 as another encoding. A text that a spreadsheet
would run as a formula is defused with a leading apostrophe.
"""

import csv
import unicodedata
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from decimal import Decimal
from io import StringIO

BYTE_ORDER_MARK = "\ufeff"
_FORMULA_STARTS = ("=", "+", "-", "@")
_CONTROLS = ("\t", "\r", "\n")


async def as_csv(
    batches: AsyncGenerator[Iterable[Sequence[object]], None], columns: Sequence[str]
) -> AsyncGenerator[str, None]:
    """Yields the file in pieces: the names of the columns, and one line for each row."""
    text = StringIO()
    text.write(BYTE_ORDER_MARK)
    writer = csv.writer(text)
    writer.writerow(columns)
    async with aclosing(batches):
        async for rows in batches:
            writer.writerows([cell(value) for value in row] for row in rows)
            yield text.getvalue()
            text.seek(0)
            text.truncate()
    yield text.getvalue()


def cell(value: object) -> str:
    """A value in CSV; None is empty. Only a text can be a formula: ids, days and sums never are."""
    if value is None:
        return ""
    # A sum comes as a Decimal, and str() of 10000 is 1E+4: programs that read digits would stumble.
    text = f"{value:f}" if isinstance(value, Decimal) else str(value)
    return f"'{text}" if isinstance(value, str) and _is_formula(text) else text


def _is_formula(text: str) -> bool:
    """Whether a spreadsheet might run it: also after blanks, and with the full-width signs of East Asian keyboards."""
    start = unicodedata.normalize("NFKC", text.lstrip()[:1])
    return text.startswith(_CONTROLS) or start.startswith(_FORMULA_STARTS)
