"""The request body of `POST /chat/ui`: what the transport of `useChat` sends, turned into a body of `/chat`.

The transport (`DefaultChatTransport` of the npm package `ai` 7) sends `id`, `messages`, `trigger` and `messageId`, and
whatever else the page puts beside them: `system`, `model`, `user` and `tags` are those of `/chat`. A message has parts,
of which the text is what Claude reads. A page keeps what the provider does not take: an answer that was stopped before
its first word leaves two messages of the user in a row, and many begin with a greeting. So messages without text are
left out, those of one role in a row are joined, and an assistant's before the first user's are left out.
"""

from typing import Annotated

import msgspec
from starlette.types import Scope

from api.gateway.chat.call import (
    MAX_MODEL_LENGTH,
    MAX_TURNS,
    ChatBody,
    EarlierTurn,
    call_of,
    check_chat,
    refusing_invalid,
)
from api.gateway.chat.forms import ui_codec
from api.gateway.codec import Call
from api.gateway.upstream.client import Upstream
from api.http.body import InvalidBody
from core.settings import Settings
from metering.tags.tags import MAX_TAGS

UI_PATH = "/chat/ui"
_ROLES = frozenset({"system", "user", "assistant"})
_MAX_PARTS = 10_000
_REFUSED = ("file", "tool-", "dynamic-tool")
"""Parts that change what is asked and that `/chat` cannot send on: leaving them out would falsify the question."""
_BETWEEN = "\n\n"


class UiPart(msgspec.Struct, frozen=True):
    """A part of a message. Reasoning, sources, steps and data have no text that is sent."""

    type: str
    text: str = ""


class UiMessage(msgspec.Struct, frozen=True):
    """A message of the conversation."""

    role: str
    parts: Annotated[list[UiPart], msgspec.Meta(max_length=_MAX_PARTS)]


class UiBody(msgspec.Struct, frozen=True):
    """The body. Unknown fields are ignored."""

    messages: Annotated[list[UiMessage], msgspec.Meta(min_length=1, max_length=MAX_TURNS)]
    system: str | None = None
    model: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_MODEL_LENGTH)] | None = None
    user: str | None = None
    tags: Annotated[dict[str, str], msgspec.Meta(max_length=MAX_TAGS)] | None = None

    def chat(self) -> ChatBody:
        """Returns the body of `/chat`. Raises InvalidBody."""
        systems = [self.system] if self.system is not None else []
        turns, text = list[EarlierTurn](), ""
        for number, message in enumerate(self.messages):
            text = _text_of(number, message)
            if message.role == "system":
                systems.append(text)
            elif not text.strip() or (not turns and message.role == "assistant"):
                pass
            elif turns and turns[-1].role == message.role:
                turns[-1] = EarlierTurn(message.role, turns[-1].text + _BETWEEN + text)
            else:
                turns.append(EarlierTurn(message.role, text))
        if not turns or self.messages[-1].role != "user" or not text.strip():
            raise InvalidBody(f"messages[{len(self.messages) - 1}]: the last message must be the user's, with text")
        system = _BETWEEN.join(systems) if systems else None
        return ChatBody(
            turns[-1].text, system=system, model=self.model, messages=turns[:-1], user=self.user, tags=self.tags
        )


def _text_of(number: int, message: UiMessage) -> str:
    """The text of a message. Raises InvalidBody for a role or a part that cannot be sent."""
    if message.role not in _ROLES:
        raise InvalidBody(f"messages[{number}].role: must be user, assistant or system")
    for place, part in enumerate(message.parts):
        if part.type.startswith(_REFUSED):
            raise InvalidBody(f"messages[{number}].parts[{place}]: files and tools are not supported; send text")
    return _BETWEEN.join(part.text for part in message.parts if part.type == "text" and part.text)


_decode = msgspec.json.Decoder(UiBody).decode


async def read_ui(scope: Scope, body: bytes, settings: Settings, upstream: Upstream) -> Call:
    """Returns the call of a body. Raises InvalidBody."""
    with refusing_invalid():
        chat = _decode(body).chat()
        check_chat(chat)
    return call_of(chat, ui_codec(scope), settings, upstream)
