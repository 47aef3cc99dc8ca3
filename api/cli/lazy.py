"""A command group that imports a command's module when the command runs, so that each command starts fast."""

import gc
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group


@dataclass(frozen=True, slots=True)
class Entry:
    """A command or a group of commands. `target`: `module:attribute`, a function or a `typer.Typer`."""

    target: str
    help: str
    panel: str


class LazyGroup(TyperGroup):
    """Lists its entries from their declaration; imports the one that is invoked."""

    def __init__(self, name: str, entries: Mapping[str, Entry], *, help: str) -> None:  # noqa: A002 - click's name
        listed: dict[str, Any] = {
            each: TyperCommand(each, help=entry.help, rich_help_panel=entry.panel) for each, entry in entries.items()
        }
        super().__init__(name=name, commands=listed, help=help, no_args_is_help=True, rich_markup_mode="rich")
        self._entries = entries

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command that `args` name, imported."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command if name is None else self._load(name), rest

    def _load(self, name: str) -> Any:
        entry = self._entries[name]
        module, _, attribute = entry.target.partition(":")
        gc.disable()
        try:
            target = getattr(import_module(module), attribute)
        finally:
            gc.freeze()  # what imports create stays: collecting it, also at exit, takes half of a short command's time
            gc.enable()
        command: Any
        if isinstance(target, typer.Typer):
            command = get_group(target)
        else:
            single = typer.Typer(add_completion=False)
            single.command(name)(target)
            command = get_command(single)
        command.name, command.help = name, entry.help
        return command
