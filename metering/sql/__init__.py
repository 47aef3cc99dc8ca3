"""SQL statements of metering that are hot or work in bulk, one file each; the rest is written with SQLAlchemy.

Each file opens with a comment that names its parameters and the rows it returns. `load` expands the nine counts
(`metering.counts`), which are written as

- `{counts}`: the names; `{sums}`: the sum of each, under its name; `{negated}`; `{or_zero}`: 0 in place of NULL;
- `{r.counts}`, `{r.sums}`, and so on: the same of the row `r`;
- `{parameters $11}`: nine arrays of bigint, from parameter $11 on.
"""

import re
from functools import cache
from pathlib import Path

from metering.counts import COUNT_COLUMNS

_FOLDER = Path(__file__).parent
_FRAGMENTS = {
    "counts": "{0}{1}",
    "sums": "sum({0}{1})::bigint AS {1}",
    "negated": "-{0}{1}",
    "or_zero": "coalesce({0}{1}, 0)",
}
_FRAGMENT = re.compile(r"\{(\w+\.)?(counts|sums|negated|or_zero)\}")
_PARAMETERS = re.compile(r"\{parameters \$(\d+)\}")


@cache
def load(name: str) -> str:
    """The statement in `NAME.sql`, with the counts expanded."""
    statement = _FRAGMENT.sub(_expand, (_FOLDER / f"{name}.sql").read_text())
    return _PARAMETERS.sub(_number, statement)


def _expand(found: re.Match[str]) -> str:
    row, fragment = found.groups(default="")
    return ", ".join(_FRAGMENTS[fragment].format(row, name) for name in COUNT_COLUMNS)


def _number(found: re.Match[str]) -> str:
    first = int(found[1])
    return ", ".join(f"${first + place}::bigint[]" for place in range(len(COUNT_COLUMNS)))
