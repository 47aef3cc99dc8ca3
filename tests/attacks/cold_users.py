"""Shows that many users not yet cached by a process are all admitted while the cores are busy.

    python -m tests.attacks.cold_users [--users 3000] [--at-once 300] [--burners 4]

Own Postgres and Valkey, processes that use every core, and the parts of one Naka process without HTTP: each user's key
is looked up and one request admitted. Prints how many failed, and why.
"""

import argparse
import asyncio
import multiprocessing
import tempfile
import time
from collections import Counter
from pathlib import Path
from uuid import UUID

import asyncpg

from core.errors import NakaError
from core.ids import uuid7
from core.tenancy.directory import Directory
from core.tenancy.keys import generate_key
from migrations.upgrade import migrate
from sandbox.postgres import Postgres
from sandbox.valkey import Valkey
from tests.harness import Books
from tests.metering.process import Process, start_process, text_ask
from tests.servers import FAST_POSTGRES, asyncpg_dsn

_TENANTS = 20


def main() -> None:
    """Creates the users, starts the burners, admits, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=3_000)
    parser.add_argument("--at-once", type=int, default=300)
    parser.add_argument("--burners", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="naka-attack-") as home:
        Path(home).chmod(0o755)
        with (
            Postgres(Path(home) / "postgres", settings=FAST_POSTGRES) as postgres,
            Valkey(Path(home) / "valkey") as valkey,
        ):
            migrate(postgres.url)
            burners = [multiprocessing.Process(target=_burn, daemon=True) for _ in range(options.burners)]
            for burner in burners:
                burner.start()
            asyncio.run(_run(postgres.url, valkey.url, options.users, options.at_once))
            for burner in burners:
                burner.terminate()


def _burn() -> None:
    number = 0
    while True:
        number += 1


async def _run(database_url: str, redis_url: str, users: int, at_once: int) -> None:
    keys = await _users(database_url, users)
    process = await start_process(database_url, redis_url, remember_s=60)
    directory = Directory(process.database, ttl_s=60)
    began = time.monotonic()
    outcomes, left = Counter[str](), iter(keys)

    async def caller() -> None:
        for key in left:
            outcomes[await _ask(process, directory, key)] += 1

    await asyncio.gather(*(caller() for _ in range(at_once)))
    print(f"{users:,} users, {at_once} at once, in {time.monotonic() - began:.1f} s")
    for outcome, count in outcomes.most_common():
        print(f"{count:8,}  {outcome}")
    await process.stop()


async def _ask(process: Process, directory: Directory, key: str) -> str:
    try:
        await process.admission.admit(await directory.authenticate(key), text_ask(100, 68))
    except NakaError as error:
        return f"{type(error).__name__}: {error}"
    return "admitted"


async def _users(database_url: str, users: int) -> list[str]:
    books = Books(database_url)
    tenants: list[UUID] = [(await books.account()).tenant_id for _ in range(_TENANTS)]
    await books.close()
    made = [(tenants[number % _TENANTS], uuid7(), uuid7(), generate_key(live=False)) for number in range(users)]
    connection = await asyncpg.connect(asyncpg_dsn(database_url))
    await connection.executemany(
        "INSERT INTO users (tenant_id, id, external_id) VALUES ($1, $2, $3)",
        [(tenant, user, user.hex) for tenant, user, _, _ in made],
    )
    await connection.executemany(
        "INSERT INTO api_keys (tenant_id, id, user_id, name, hash, prefix, scopes)"
        " VALUES ($1, $2, $3, 'cold', $4, $5, ARRAY['chat'])",
        [(tenant, key_id, user, key.hash, key.prefix) for tenant, user, key_id, key in made],
    )
    await connection.close()
    return [key.plaintext for _, _, _, key in made]


if __name__ == "__main__":
    main()
