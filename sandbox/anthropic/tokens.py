"""The simulator's tokenizer: pure and deterministic.

A UTF-8 byte weighs some quarter tokens, and a text's weight is rounded up to tokens once. For all texts a and b:

- never more tokens than UTF-8 bytes (admission's bound relies on it);
- a prefix never has more tokens than the whole;
- `count(a) + count(b) - 1 <= count(a + b) <= count(a) + count(b)`.

English has about 1 token per 3.8 characters; control characters have 1 per byte, so that the bound can be reached.
"""

import re
import string
from functools import lru_cache

QUARTERS_PER_TOKEN = 4

_LIGHT = (string.ascii_letters + " ").encode()  # 1 quarter a byte; every other byte weighs 2 ...
_HEAVY = bytes(code for code in (*range(32), 127) if code not in b"\t\n\r")  # ... and these 4
_FILLER = (
    "the toll post counts every word that passes and keeps no word for itself so that the bill at the end "
    "of the month says what was carried and nothing else and whoever reads it finds it fair and plain "
)
_PIECE = re.compile(r"(?:\S{1,24}\s{0,8}){1,3}|\s{1,24}")


def quarters(text: str) -> int:
    """Weigh a text in quarter tokens; exactly additive over concatenation."""
    data = text.encode("utf-8", "surrogatepass")
    rest = data.translate(None, _LIGHT)
    heavy = len(rest) - len(rest.translate(None, _HEAVY))
    return len(data) + len(rest) + 2 * heavy


def tokens_of(weight_quarters: int) -> int:
    """Round a weight up to whole tokens."""
    return -(-weight_quarters // QUARTERS_PER_TOKEN)


def count_text(text: str) -> int:
    """Count the tokens of a text."""
    return tokens_of(quarters(text))


def cut_text(text: str, tokens: int) -> str:
    """Return the longest prefix of a text that has at most so many tokens."""
    limit = tokens * QUARTERS_PER_TOKEN
    if quarters(text) <= limit:
        return text
    low, high = 0, len(text)  # the prefix of `low` fits, that of `high` does not
    while high - low > 1:
        middle = (low + high) // 2
        if quarters(text[:middle]) <= limit:
            low = middle
        else:
            high = middle
    return text[:low]


@lru_cache(maxsize=64)
def filler(tokens: int) -> str:
    """Make English-looking text of exactly so many tokens."""
    length = tokens * QUARTERS_PER_TOKEN  # letters and blanks only: one quarter each
    return (_FILLER * (length // len(_FILLER) + 1))[:length]


@lru_cache(maxsize=64)
def split_pieces(text: str) -> tuple[str, ...]:
    """Cut a text into deltas of up to three words; joined they are the text again."""
    return tuple(_PIECE.findall(text))
