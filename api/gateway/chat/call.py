"""The request body of `POST /chat`, decoded once: into the provider's prompt and the admission request for it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import msgspec
from starlette.types import Scope

from api.gateway.chat.forms import chat_codec
from api.gateway.codec import Call, Codec
from api.gateway.upstream.client import Upstream
from api.gateway.upstream.prompts import ChatPrompt, Turn
from api.http.body import InvalidBody
from core.settings import Settings
from metering.admission.admission import AdmissionRequest
from metering.pricing.tokens import PROMPT_OVERHEAD_TOKENS, TURN_OVERHEAD_TOKENS, bound_of_text, likely_of_text
from metering.tags.tags import MAX_TAGS

MAX_MODEL_LENGTH = 100
MAX_TURNS = 10_000
_ROLES = ("user", "assistant")


class EarlierTurn(msgspec.Struct, frozen=True):
    """A turn of the conversation so far."""

    role: str
    text: str


class ChatBody(msgspec.Struct, frozen=True):
    """The body. All but `message` are optional or null; unknown fields are ignored.

    `messages`: the earlier turns, oldest first; user and assistant alternate, and `message` follows an assistant's.
    `user`: the end user that a key with `chat:as-user` acts for.
    """

    message: Annotated[str, msgspec.Meta(min_length=1)]
    system: str | None = None
    model: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_MODEL_LENGTH)] | None = None
    messages: Annotated[list[EarlierTurn], msgspec.Meta(max_length=MAX_TURNS)] | None = None
    tags: Annotated[dict[str, str], msgspec.Meta(max_length=MAX_TAGS)] | None = None
    user: str | None = None

    def prompt(self, settings: Settings) -> ChatPrompt:
        """Returns the prompt for the provider. A blank `system` is left out: the provider refuses blank text."""
        system = settings.chat_system if self.system is None else self.system
        earlier = tuple(Turn(turn.role, turn.text) for turn in self.messages or ())
        return ChatPrompt(self.model or settings.chat_model, system if system.strip() else "", self.message, earlier)


_decode = msgspec.json.Decoder(ChatBody).decode


def _decode_chat(body: bytes) -> ChatBody:
    """Decodes a body. Raises InvalidBody."""
    with refusing_invalid():
        chat = _decode(body)
        check_chat(chat)
    return chat


@contextmanager
def refusing_invalid() -> Iterator[None]:
    """Raises InvalidBody, which names the field and never its value, for what cannot be decoded."""
    try:
        yield
    except msgspec.ValidationError as error:
        raise InvalidBody(str(error)) from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise InvalidBody("The body is not JSON in UTF-8.") from error


def check_chat(chat: ChatBody) -> None:
    """Raises InvalidBody for blank text and turns that are no conversation, UnicodeError for text that is not UTF-8."""
    if not chat.message.strip():
        raise InvalidBody("message: must not be blank")
    chat.message.encode()
    (chat.system or "").encode()
    if chat.messages:
        _check_turns(chat.messages)


def _check_turns(turns: list[EarlierTurn]) -> None:
    """Raises InvalidBody for turns that are no conversation, UnicodeError for text that is not UTF-8."""
    for number, turn in enumerate(turns):
        role = _ROLES[number % 2]
        if turn.role != role:
            raise InvalidBody(f"messages[{number}].role: must be {role}; roles alternate, and the first is user")
        if not turn.text.strip():
            raise InvalidBody(f"messages[{number}].text: must not be blank")
        turn.text.encode()
    if len(turns) % 2:
        raise InvalidBody(f"messages[{len(turns) - 1}].role: the last turn before `message` must be assistant")


async def read_chat(scope: Scope, body: bytes, settings: Settings, upstream: Upstream) -> Call:
    """Returns the call of a body. Raises InvalidBody."""
    return call_of(_decode_chat(body), chat_codec(scope), settings, upstream)


def call_of(chat: ChatBody, codec: Callable[[], Codec], settings: Settings, upstream: Upstream) -> Call:
    """Returns the call of a checked body."""
    prompt = chat.prompt(settings)
    text_bytes = len(prompt.message.encode()) + len(prompt.system.encode())
    overhead = PROMPT_OVERHEAD_TOKENS
    if prompt.earlier:
        text_bytes += sum(len(turn.text.encode()) for turn in prompt.earlier)
        overhead += len(prompt.earlier) * TURN_OVERHEAD_TOKENS
    admission = AdmissionRequest(
        model=prompt.model,
        max_tokens=settings.chat_max_tokens,
        prompt_bound=bound_of_text(text_bytes, overhead),
        prompt_likely=likely_of_text(text_bytes, overhead),
        count=lambda: upstream.count_tokens(prompt),
    )
    return Call(prompt, admission, codec, user=chat.user, tags=tuple((chat.tags or {}).items()))
