"""SQL statements of metering that are hot or work in bulk, one file each; the rest is written with SQLAlchemy.

Each file opens with a comment that names its parameters and the rows it returns.
"""

from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).parent


@cache
def load(name: str) -> str:
    """The statement in `NAME.sql`."""
    return (_FOLDER / f"{name}.sql").read_text()
