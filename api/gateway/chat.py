"""The request body of `POST /chat`, decoded once: into the provider's prompt and the admission request for it."""

from typing import Annotated

import msgspec

from api.gateway.upstream import ChatPrompt, Upstream
from api.http.body import InvalidBody
from core.settings import Settings
from metering.admission.admission import AdmissionRequest

_MAX_MODEL_LENGTH = 100


class ChatBody(msgspec.Struct, frozen=True):
    """The body. `system` and `model` are optional or null; unknown fields are ignored."""

    message: Annotated[str, msgspec.Meta(min_length=1)]
    system: str | None = None
    model: Annotated[str, msgspec.Meta(min_length=1, max_length=_MAX_MODEL_LENGTH)] | None = None

    def prompt(self, settings: Settings) -> ChatPrompt:
        """Returns the prompt for the provider. A blank `system` is left out: the provider refuses blank text."""
        system = settings.chat_system if self.system is None else self.system
        return ChatPrompt(self.model or settings.chat_model, system if system.strip() else "", self.message)


_decode = msgspec.json.Decoder(ChatBody).decode


def _decode_chat(body: bytes) -> ChatBody:
    """Decodes a body. Raises InvalidBody, which names the field and never its value."""
    try:
        chat = _decode(body)
        if not chat.message.strip():
            raise InvalidBody("message: must not be blank")
        chat.message.encode()
        (chat.system or "").encode()
    except msgspec.ValidationError as error:
        raise InvalidBody(str(error)) from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise InvalidBody("The body is not JSON in UTF-8.") from error
    return chat


def read_chat(body: bytes, settings: Settings, upstream: Upstream) -> tuple[ChatPrompt, AdmissionRequest]:
    """Returns the prompt of a body and the admission request for it. Raises InvalidBody."""
    prompt = _decode_chat(body).prompt(settings)
    return prompt, AdmissionRequest(
        model=prompt.model,
        max_tokens=settings.chat_max_tokens,
        prompt_bytes=len(prompt.message.encode()) + len(prompt.system.encode()),
        count=lambda: upstream.count_tokens(prompt),
    )
