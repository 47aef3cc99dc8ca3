"""The environment itself, before any settings: no import but the standard library's, so that it can come first."""

import os

_READ_BY_LIBRARIES = ("PROMETHEUS_MULTIPROC_DIR", "FORWARDED_ALLOW_IPS")


def variable(name: str) -> str:
    """The variable without white space around it. Empty is unset."""
    return os.environ.get(name, "").strip()


def forget_blank_variables() -> None:
    """Removes what libraries read themselves and take for set when it is empty. Before they are imported."""
    for name, value in list(os.environ.items()):
        if not value.strip() and (name in _READ_BY_LIBRARIES or name.startswith("PG")):
            del os.environ[name]
