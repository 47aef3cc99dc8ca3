"""Environment variables needed before the settings. Imports only the standard library, so it can be imported first."""

import os

_READ_BY_LIBRARIES = ("PROMETHEUS_MULTIPROC_DIR", "FORWARDED_ALLOW_IPS")


def variable(name: str) -> str:
    """Returns the variable without surrounding white space; empty when unset."""
    return os.environ.get(name, "").strip()


def forget_blank_variables() -> None:
    """Removes blank variables that libraries would take for set. Call it before importing them."""
    for name, value in list(os.environ.items()):
        if not value.strip() and (name in _READ_BY_LIBRARIES or name.startswith("PG")):
            del os.environ[name]
