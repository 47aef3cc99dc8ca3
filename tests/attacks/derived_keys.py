"""Privilege escalation through derived keys, by every way a running server offers. Shows that none succeeds.

    python -m tests.attacks.derived_keys [--seconds 20]

Own Postgres, Valkey and `naka serve`, and a captured admin key for one model and one hour. It creates, rotates and
signs in, by the API and the pages, at random and concurrently, also with every new secret. The resulting keys are
compared with the captured one: scopes, models, expiry, tenant. Meanwhile the operator revokes the captured key's tree;
afterwards no key of the tree may work or be created. Exits with 1 if any key escalated or survived.
"""

import argparse
import asyncio
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2

from core.tenancy.accounts import create_key, create_user
from core.tenancy.models import ApiKey
from core.tenancy.principal import Scope
from migrations.upgrade import migrate
from sandbox.postgres import Postgres
from sandbox.valkey import Valkey
from tests.harness import ACTOR, SIMULATOR_KEY, Account, Api, Books, client, environment, running

MODELS = ("claude-sonnet-4-6", "claude-haiku-4-5", "claude-opus-4-6")
SCOPES = ("chat", "usage:read", "tenant:admin", "platform:admin")
SECRET = re.compile(r"nk_(?:test|live)_[0-9A-Za-z]{49}")
ATTACKERS = 6
SURVIVORS = """
WITH RECURSIVE tree AS (
    SELECT id FROM api_keys WHERE id = $1
    UNION SELECT k.id FROM api_keys k JOIN tree t ON k.parent_key_id = t.id OR k.predecessor_key_id = t.id
)
SELECT k.* FROM api_keys k JOIN tree USING (id)
"""


@dataclass
class Found:
    """The secrets that answers revealed, and the statuses of the calls."""

    secrets: list[str]
    users: list[str]
    keys: list[str]
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)

    def take(self, move: str, answer: httpx2.Response) -> None:
        """Records an answer, and the secrets and ids in it."""
        self.answers[move, answer.status_code] += 1
        self.secrets += [one for one in SECRET.findall(answer.text) if one not in self.secrets]


@dataclass
class Scene:
    """A tenant with keys of all kinds, an operator, and the captured key."""

    http: httpx2.AsyncClient
    books: Books
    captured: ApiKey
    operator: Account
    found: Found


async def stage(http: httpx2.AsyncClient, books: Books) -> Scene:
    """Creates the captured key, stronger ones of the same tenant, and another tenant."""
    admin = await books.account(scopes=[Scope.TENANT_ADMIN, Scope.CHAT, Scope.USAGE_READ])
    operator = await books.account(scopes=[Scope.PLATFORM_ADMIN], tenant_id=admin.tenant_id)
    stranger = await books.account(scopes=[Scope.TENANT_ADMIN])
    async with books.database.session() as session:
        user = await create_user(session, ACTOR, admin.tenant_id, external_id="mallory")
        captured, secret = await create_key(
            session,
            ACTOR,
            user,
            name="captured",
            scopes=[Scope.TENANT_ADMIN, Scope.CHAT],
            models=[MODELS[0]],
            expires_at=datetime.now(UTC) + timedelta(hours=1),
            live=False,
        )
    others = (admin, operator, stranger)
    users = [str(user.id), *(str(one.user_id) for one in others)]
    found = Found([secret.plaintext], users, [str(captured.id), *(str(one.key_id) for one in others)])
    return Scene(http, books, captured, operator, found)


def wish(draw: random.Random) -> dict[str, Any]:
    """Returns the body of a new key, often with more rights than the captured one."""
    body: dict[str, Any] = {"name": "k"}
    if draw.random() < 0.8:
        body["scopes"] = draw.sample(SCOPES, draw.randint(1, 3))
    body["models"] = draw.choice([None, [MODELS[0]], [MODELS[1]], list(MODELS)])
    hours = draw.choice([None, 0.5, 0.9, 2, 8760])
    body["expires_at"] = None if hours is None else (datetime.now(UTC) + timedelta(hours=hours)).isoformat()
    return body


async def by_api(scene: Scene, draw: random.Random, key: str) -> None:
    """Creates or rotates a key over the API."""
    headers = {draw.choice(["x-api-key", "authorization"]): key}
    if "authorization" in headers:
        headers = {"authorization": f"Bearer {key}"}
    if draw.random() < 0.6:
        path, body = f"/v1/admin/users/{draw.choice(scene.found.users)}/keys", wish(draw)
    else:
        path, body = f"/v1/admin/keys/{draw.choice(scene.found.keys)}/rotate", {"overlap_s": 2_000_000}
    answer = await scene.http.post(path, json=body, headers=headers)
    scene.found.take("make" if path.endswith("/keys") else "rotate", answer)
    if answer.status_code == 201:
        scene.found.keys.append(answer.json()["id"])


async def by_pages(scene: Scene, draw: random.Random, key: str) -> None:
    """Signs in with a key, and creates or rotates one by the forms."""
    same = {"sec-fetch-site": "same-origin"}
    async with client(str(scene.http.base_url)) as browser:
        answer = await browser.post("/sign-in", data={"key": key}, headers=same)
        scene.found.answers["sign in", answer.status_code] += 1
        want = wish(draw)
        form = {"name": "k", "scopes": want.get("scopes", ["chat"]), "models": want["models"] or []}
        form["expires_at"] = draw.choice(["", "2031-01-01"])
        user = draw.choice(scene.found.users)
        scene.found.take("make by page", await _submit(browser, f"/account/keys/{user}", form))
        path = f"/account/key/{draw.choice(scene.found.keys)}/rotate"
        scene.found.take("rotate by page", await _submit(browser, path, {"overlap": "604800"}))
        form = {"slug": f"t{draw.randrange(10**9)}", "name": "T", "user": "u"}
        scene.found.take("make a tenant", await _submit(browser, "/operator/tenants", form))


async def _submit(browser: httpx2.AsyncClient, path: str, form: dict[str, Any]) -> httpx2.Response:
    """Sends a form, and opens the page that its redirect leads to."""
    answer = await browser.post(path, data=form, headers={"sec-fetch-site": "same-origin"})
    return await browser.get(answer.headers["location"]) if answer.status_code == 303 else answer


async def attack(scene: Scene, seed: int, ended: asyncio.Event) -> None:
    """Attacks with every secret found until told to end."""
    draw = random.Random(seed)
    moves: tuple[Callable[..., Awaitable[None]], ...] = (by_api, by_api, by_api, by_pages)
    while not ended.is_set():
        await draw.choice(moves)(scene, draw, draw.choice(scene.found.secrets[-50:]))


async def climbed(scene: Scene) -> tuple[int, list[str]]:
    """Returns the size of the tree, and its keys that have more rights than the captured one."""
    rows = await scene.books.fetch(SURVIVORS, scene.captured.id)
    root = scene.captured
    above = [
        str(row["id"])
        for row in rows
        if row["tenant_id"] != root.tenant_id
        or not set(row["scopes"]) <= set(root.scopes)
        or row["models"] is None
        or not set(row["models"]) <= set(root.models or ())
        or row["expires_at"] is None
        or root.expires_at is None
        or row["expires_at"] > root.expires_at
    ]
    known = {str(row["id"]) for row in rows}
    above += [key for key in scene.found.keys[4:] if key not in known]  # made by us, and not in the tree
    return len(rows), above


async def works(scene: Scene, secret: str) -> bool:
    """Whether a secret still authenticates."""
    answer = await scene.http.get("/v1/admin/audit", headers={"x-api-key": secret})
    return answer.status_code != 401


async def run(url: str, books: Books, seconds: float) -> int:
    """Runs the attack, and revokes the key in the middle."""
    async with client(url) as http:
        scene = await stage(http, books)
        ended = asyncio.Event()
        attackers = [asyncio.create_task(attack(scene, seed, ended)) for seed in range(ATTACKERS)]
        await asyncio.sleep(seconds)
        began = time.monotonic()
        path = f"/v1/admin/keys/{scene.captured.id}?descendants=true"
        revoked = await http.delete(path, headers=scene.operator.headers)
        took_ms = round((time.monotonic() - began) * 1000)
        await asyncio.sleep(1)
        ended.set()
        await asyncio.gather(*attackers)
        keys, above = await climbed(scene)
        alive = [one[:14] for one in scene.found.secrets if await works(scene, one)]
        open_rows = await books.fetch(
            f"SELECT count(*) FROM ({SURVIVORS}) s WHERE revoked_at IS NULL", scene.captured.id
        )
    for (move, status), count in sorted(scene.found.answers.items()):
        print(f"{move:16} {status}  {count:6}")
    left = f"{len(alive)} secrets and {open_rows[0][0]} rows"
    print(f"{keys} keys in the tree, {len(scene.found.secrets)} secrets seen; {revoked.status_code} after {took_ms} ms")
    print(f"more than the captured key: {len(above)}; alive after the revocation: {left}")
    return 1 if above or alive or open_rows[0][0] or keys < 2 else 0


def main() -> int:
    """Starts the servers, attacks, prints the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20)
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory(prefix="naka-attack-") as home, ExitStack() as stack:
        postgres = stack.enter_context(Postgres(Path(home) / "postgres"))
        valkey = stack.enter_context(Valkey(Path(home) / "valkey"))
        migrate(postgres.url)
        settings = environment(postgres.url, valkey.url, "http://127.0.0.1:9", ANTHROPIC_API_KEY=SIMULATOR_KEY)
        api = stack.enter_context(running(Api(settings, Path(home) / "api.log")))
        return asyncio.run(_attacked(api.url, postgres.url, seconds))


async def _attacked(url: str, database_url: str, seconds: float) -> int:
    books = Books(database_url)
    try:
        return await run(url, books, seconds)
    finally:
        await books.close()


if __name__ == "__main__":
    sys.exit(main())
