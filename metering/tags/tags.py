"""The tags of a request: how they are written, and their bounds. Pure.

A tag is a key and a value. Tags of a short-lived token or a JWT win over those of the request. Keys that begin with
`nk:` are Naka's own: no request may send them.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import unquote

import msgspec

from core.errors import Invalid

MAX_TAGS = 8
MAX_VALUE_CHARS = 200
OTHER = "other"
"""The value that is stored, and added up, in place of one past the bound of distinct values."""
RESERVED = "nk:"
TOKEN_KEY = f"{RESERVED}token"
"""The id of the short-lived token of the request."""
OVERFLOW_KEY = f"{RESERVED}other"
"""The keys whose values were replaced by `other`, joined by commas."""
KEY_PATTERN = r"^[a-z0-9][a-z0-9_.-]{0,39}$"
KEY_RULE = "a tag key has 1 to 40 characters: a to z, 0 to 9, `_`, `.`, `-`; the first is a letter or a digit"

_KEY = re.compile(KEY_PATTERN[1:-1])
_VALUE_RULE = f"has 1 to {MAX_VALUE_CHARS} printable characters"

Tags = tuple[tuple[str, str], ...]
"""Keys and values, in the order of the keys; a key is there once."""


class InvalidTags(Invalid):
    """The tags do not have the documented form. The message never names a value."""


@dataclass(frozen=True, slots=True)
class RequestTags:
    """The tags that the row of a request stores, and the keys among them whose values are added up. Fixed at the open.

    `is_overflow` of a key: its value was replaced by `other`.
    """

    tags: Tags = ()
    keys: tuple[str, ...] = ()

    @property
    def added_up(self) -> Tags:
        """The tags whose usage is added up."""
        return tuple((key, value) for key, value in self.tags if key in self.keys)

    @property
    def as_json(self) -> str | None:
        """The tags for `usage_requests.tags`; None without any."""
        return msgspec.json.encode(dict(self.tags)).decode() if self.tags else None

    @property
    def joined_keys(self) -> str | None:
        """The keys for `usage_requests.tag_keys`, joined by commas; None without any."""
        return ",".join(self.keys) or None


NO_TAGS = RequestTags()


def is_key(key: str) -> bool:
    """Whether a request may use the key, and a tenant may declare it."""
    return _KEY.fullmatch(key) is not None


def checked(pairs: Iterable[tuple[str, str]]) -> Tags:
    """The tags in the order of their keys, values in NFC and trimmed. Raises InvalidTags."""
    found: dict[str, str] = {}
    for key, sent in pairs:
        if not is_key(key):
            raise InvalidTags(f"tags: {KEY_RULE}")
        value = unicodedata.normalize("NFC", sent).strip()
        if not 1 <= len(value) <= MAX_VALUE_CHARS or not value.isprintable():
            raise InvalidTags(f"tags: the value of `{key}` {_VALUE_RULE}")
        if found.setdefault(key, value) != value:
            raise InvalidTags(f"tags: `{key}` has two values")
    if len(found) > MAX_TAGS:
        raise InvalidTags(f"tags: a request has at most {MAX_TAGS}")
    return tuple(sorted(found.items()))


def parse_header(header: bytes) -> list[tuple[str, str]]:
    """The pairs of a `Naka-Tags` header: `feature=search,conversation=c-42`, values percent-encoded where needed.

    Raises InvalidTags; the pairs are not checked yet.
    """
    pairs: list[tuple[str, str]] = []
    try:
        for item in header.decode().split(","):
            key, separator, value = item.partition("=")
            if not separator:
                raise InvalidTags("Naka-Tags: write tags as `feature=search,conversation=c-42`")
            pairs.append((key.strip(), unquote(value, errors="strict")))
    except UnicodeDecodeError as error:
        raise InvalidTags("Naka-Tags: not UTF-8") from error
    return pairs


def merged(own: Tags, sent: Iterable[tuple[str, str]]) -> Tags:
    """The tags that a request sends, under those of its token or JWT. Raises InvalidTags."""
    return checked({**dict(checked(sent)), **dict(own)}.items()) if own else checked(sent)


def with_overflow(tags: Mapping[str, str], keys: Iterable[str], overflow: Iterable[str]) -> RequestTags:
    """The tags of a request of which the values of `overflow` are past their bounds; `keys` are added up."""
    over = sorted(overflow)
    stored = dict(tags) | dict.fromkeys(over, OTHER)
    if over:
        stored[OVERFLOW_KEY] = ",".join(over)
    return RequestTags(tuple(sorted(stored.items())), tuple(sorted(keys)))
