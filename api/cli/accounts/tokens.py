"""`naka token`: the secrets that sign short-lived tokens."""

from typing import Annotated

import typer

from api.cli.command import Call, Group
from api.services.accounts import tokens

app = Group()

AtOnce = Annotated[
    bool, typer.Option("--at-once", help="Refuse every token signed before, as after a leak of the database.")
]


@app.answering("rotate-secret")
def rotate_secret(*, at_once: AtOnce = False) -> Call:
    """Sign tokens with a new secret from now on. Tokens signed before stay valid until they expire."""
    return lambda context: tokens.rotate_token_secret(context, at_once=at_once)


@app.callback()
def _group() -> None:
    """Keeps the name of the only command."""
