"""Decisions of an operator, with the reason that the audit log keeps."""

from typing import Annotated

from pydantic import StringConstraints

from api.schemas.fields import Body, example
from metering.adjustments.corrections import MAX_REASON

Reason = Annotated[str, StringConstraints(min_length=1, max_length=MAX_REASON, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]


class Decision(Body):
    """The reason of a decision."""

    model_config = example(reason="agreed with the customer")

    reason: Reason
