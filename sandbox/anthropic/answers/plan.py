"""The plan of an answer: its blocks, usage and end, from a request and its script. Pure.

Output tokens are the tokens generated, thinking included, at most `max_tokens`; only a script may report another
number.
"""

from dataclasses import dataclass
from typing import Any

from sandbox.anthropic.answers.blocks import Block
from sandbox.anthropic.answers.content import write_content
from sandbox.anthropic.answers.cutting import cut_blocks
from sandbox.anthropic.answers.usage import Usage, count_usage, prompt_counts
from sandbox.anthropic.caches import Prompt
from sandbox.anthropic.errors import ApiError
from sandbox.anthropic.models import SERVED_AS_STANDARD
from sandbox.anthropic.requests.asking import Asked
from sandbox.anthropic.requests.fields import Request
from sandbox.anthropic.script import Script

Json = dict[str, Any]

_REFUSED = {"type": "refusal", "category": None, "explanation": "The simulator was told to refuse."}


@dataclass(frozen=True, slots=True)
class Answer:
    """The whole answer; `generated_tokens` are the output before a script claims another number."""

    script: Script
    blocks: tuple[Block, ...]
    usage: Usage
    speed: str
    inference_geo: str
    service_tier: str
    generated_tokens: int
    stop_reason: str
    stop_sequence: str | None
    stop_details: Json | None
    container: Json | None
    context_management: Json | None
    """The edits that were applied, if the request asked for any."""

    @property
    def model(self) -> str:
        """The model as echoed."""
        return self.usage.model

    @property
    def output_tokens(self) -> int:
        """The output tokens as reported."""
        return self.usage.final.output_tokens

    def reported(self, generated: int) -> int:
        """Return what is reported of so many tokens generated: a claimed total is reached in proportion."""
        if self.generated_tokens == self.output_tokens:
            return generated
        return self.output_tokens * generated // (self.generated_tokens or 1)


def compose(request: Request, asked: Asked, prompt: Prompt) -> Answer:
    """Plan the answer to a request; raises `ApiError` (400) for a prompt that is longer than the window."""
    script, model = asked.script, request.model
    if prompt.total > model.max_input_tokens:
        raise ApiError(400, f"prompt is too long: {prompt.total} tokens > {model.max_input_tokens} maximum")
    written, reason = write_content(request, asked, prompt)
    blocks, cut, sequence = cut_blocks(written, request.max_tokens, request.stop_sequences)
    if cut is not None and script.refusal is None:
        reason = cut
    else:
        sequence = None
    if request.max_tokens == 0:
        reason = "max_tokens"
    usage = count_usage(
        blocks,
        prompt_counts(prompt, script),
        script,
        model,
        compacts=request.head.has_beta("compact-"),
        charged=script.refusal != "empty",
    )
    reason = script.stop_reason or reason
    fast = request.fields.speed == "fast" and model.id not in SERVED_AS_STANDARD
    return Answer(
        script=script,
        blocks=blocks,
        usage=usage,
        speed=script.speed or ("fast" if fast else "standard"),
        inference_geo=script.inference_geo
        or request.inference_geo
        or ("global" if model.takes_geo else "not_available"),
        service_tier=script.service_tier or "standard",
        generated_tokens=_generated(blocks),
        stop_reason=reason,
        stop_sequence=sequence,
        stop_details=script.stop_details or (_REFUSED if reason == "refusal" else None),
        container=script.container,
        context_management=None if request.fields.context_management is None else {"applied_edits": []},
    )


def _generated(blocks: tuple[Block, ...]) -> int:
    """Sum the output of the top level: after a fallback only what followed it."""
    last = max((number for number, block in enumerate(blocks) if block.kind == "fallback"), default=-1)
    return sum(block.tokens for block in blocks[last + 1 :] if block.counted)
