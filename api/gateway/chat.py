"""What `POST /chat` takes. One decoder, so that the toll and the relay can never disagree on what a body is."""

from typing import Annotated

import msgspec
from starlette.types import Receive, Scope

from api.gateway.upstream import ChatPrompt, Upstream
from api.http.body import InvalidBody, read_body
from core.settings import Settings
from metering.admission.admission import AdmissionRequest

_MAX_MODEL_LENGTH = 100


class ChatBody(msgspec.Struct, frozen=True):
    """`system` and `model` are optional; null is as good as absent. Other fields are ignored, as they always were."""

    message: Annotated[str, msgspec.Meta(min_length=1)]
    system: str | None = None
    model: Annotated[str, msgspec.Meta(min_length=1, max_length=_MAX_MODEL_LENGTH)] | None = None

    def prompt(self, settings: Settings) -> ChatPrompt:
        """The prompt for the provider, which refuses blank text: a blank `system` means none at all."""
        system = settings.chat_system if self.system is None else self.system
        return ChatPrompt(self.model or settings.chat_model, system if system.strip() else "", self.message)


_decode = msgspec.json.Decoder(ChatBody).decode


def decode_chat(body: bytes) -> ChatBody:
    """The body of a request. Raises InvalidBody; its words name the field, not what was in it."""
    try:
        chat = _decode(body)
        if not chat.message.strip():
            raise InvalidBody("message: says nothing")
        chat.message.encode()
        (chat.system or "").encode()
    except msgspec.ValidationError as error:
        raise InvalidBody(str(error)) from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise InvalidBody("the body is not JSON in UTF-8") from error
    return chat


async def read_chat(scope: Scope, receive: Receive, *, max_bytes: int) -> ChatBody:
    """Reads and decodes. Raises what `read_body` and `decode_chat` raise."""
    return decode_chat(await read_body(scope, receive, max_bytes=max_bytes))


def chat_admission_request(body: bytes, settings: Settings, upstream: Upstream) -> AdmissionRequest:
    """What the request wants, for admission. Raises InvalidBody when the route would refuse it."""
    prompt = decode_chat(body).prompt(settings)
    return AdmissionRequest(
        model=prompt.model,
        max_tokens=settings.chat_max_tokens,
        prompt_bytes=len(prompt.message.encode()) + len(prompt.system.encode()),
        count=lambda: upstream.count_tokens(prompt),
    )
