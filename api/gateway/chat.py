"""The request body of `POST /chat`, decoded once: into the provider's prompt and the admission request for it."""

from typing import Annotated

import msgspec
from starlette.types import Scope

from api.gateway.chat_codec import ChatCodec
from api.gateway.codec import Call
from api.gateway.upstream.client import Upstream
from api.gateway.upstream.prompts import ChatPrompt, Turn
from api.http.body import InvalidBody
from core.settings import Settings
from metering.admission.admission import AdmissionRequest
from metering.pricing.tokens import PROMPT_OVERHEAD_TOKENS, TURN_OVERHEAD_TOKENS, bound_of_text, likely_of_text

_MAX_MODEL_LENGTH = 100
_MAX_TURNS = 10_000
_ROLES = ("user", "assistant")


class EarlierTurn(msgspec.Struct, frozen=True):
    """A turn of the conversation so far."""

    role: str
    text: str


class ChatBody(msgspec.Struct, frozen=True):
    """The body. `system`, `model` and `messages` are optional or null; unknown fields are ignored.

    `messages`: the earlier turns, oldest first; user and assistant alternate, and `message` follows an assistant's.
    """

    message: Annotated[str, msgspec.Meta(min_length=1)]
    system: str | None = None
    model: Annotated[str, msgspec.Meta(min_length=1, max_length=_MAX_MODEL_LENGTH)] | None = None
    messages: Annotated[list[EarlierTurn], msgspec.Meta(max_length=_MAX_TURNS)] | None = None

    def prompt(self, settings: Settings) -> ChatPrompt:
        """Returns the prompt for the provider. A blank `system` is left out: the provider refuses blank text."""
        system = settings.chat_system if self.system is None else self.system
        earlier = tuple(Turn(turn.role, turn.text) for turn in self.messages or ())
        return ChatPrompt(self.model or settings.chat_model, system if system.strip() else "", self.message, earlier)


_decode = msgspec.json.Decoder(ChatBody).decode


def _decode_chat(body: bytes) -> ChatBody:
    """Decodes a body. Raises InvalidBody, which names the field and never its value."""
    try:
        chat = _decode(body)
        if not chat.message.strip():
            raise InvalidBody("message: must not be blank")
        chat.message.encode()
        (chat.system or "").encode()
        if chat.messages:
            _check_turns(chat.messages)
    except msgspec.ValidationError as error:
        raise InvalidBody(str(error)) from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise InvalidBody("The body is not JSON in UTF-8.") from error
    return chat


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
    del scope
    prompt = _decode_chat(body).prompt(settings)
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
    return Call(prompt, admission, ChatCodec)
