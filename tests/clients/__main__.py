"""Anthropic's clients against Naka: `python -m tests.clients [NAMES]`; without names all of them.

Installs each client into `~/.cache/naka-clients` (or `NAKA_CLIENTS`), one at a time, runs it, and prints a table: a
scenario that works is `ok`, one that the client does not have `-`. Exits with 1 if anything failed. `sdk-tests` is the
SDK's own tests of messages. Needs a network for the installation only; npm's clients need npm.
"""

import argparse
import asyncio
import subprocess
import sys

from tests.clients import sdk_tests
from tests.clients.catalogue import BY_NAME, CLIENTS, Client
from tests.clients.installation import install
from tests.clients.stage import Stage, stage
from tests.clients.task import EXPECTED, MODEL
from tests.clients.trial import Result, tried
from tests.harness import Books

SDK_TESTS = "sdk-tests"
COLUMNS = (*EXPECTED, "books")


def main() -> None:
    """Reads the arguments, runs, exits."""
    parser = argparse.ArgumentParser(prog="python -m tests.clients", description="Anthropic's clients against Naka.")
    parser.add_argument("names", nargs="*", type=_name, metavar="NAME", help=" ".join((*BY_NAME, SDK_TESTS)))
    parser.add_argument("--scenario", action="append", choices=list(EXPECTED), help="only this one")
    parser.add_argument("--model", default=MODEL, help="another model; not every client can be told to think by it")
    parser.add_argument("--upgrade", action="store_true", help="install again, in the newest version that fits")
    given = parser.parse_args()
    names = given.names or [*BY_NAME, SDK_TESTS]
    with stage() as (servers, database_url):
        failed = asyncio.run(_all(servers, Books(database_url), names, given))
    sys.exit(bool(failed))


def _name(given: str) -> str:
    """A client's name. Raises ValueError; `choices` would refuse an empty list of names."""
    if given not in {*BY_NAME, SDK_TESTS}:
        raise ValueError(given)
    return given


async def _all(servers: Stage, books: Books, names: list[str], given: argparse.Namespace) -> int:
    failed = 0
    print(f"{'client':22}" + "".join(f"{name:>9}" for name in COLUMNS), flush=True)  # noqa: T201
    try:
        for client in (one for one in CLIENTS if one.name in names):
            failed += await _one(servers, books, client, given)
        if SDK_TESTS in names:
            failed += await sdk_tests.run(servers, books)
    finally:
        await books.close()
    return failed


async def _one(servers: Stage, books: Books, client: Client, given: argparse.Namespace) -> int:
    try:
        version = install(client, upgrade=given.upgrade)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"{client.name:22} NOT INSTALLED: {error}", flush=True)  # noqa: T201
        return 1
    result = await tried(servers, books, client, given.scenario or (), model=given.model)
    print(f"{client.name + ' ' + version:22}" + "".join(f"{_cell(result, name):>9}" for name in COLUMNS))  # noqa: T201
    for name, fault in result.faults.items():
        print(f"    {name}: {fault}")  # noqa: T201
    sys.stdout.flush()
    return len(result.faults)


def _cell(result: Result, name: str) -> str:
    if name in result.faults:
        return "FAILED"
    return "ok" if name in {"books", *result.scenarios} else "-"


if __name__ == "__main__":
    main()
