"""The secrets of short-lived tokens while Postgres is away."""

import pytest

from core.errors import Unavailable
from core.identity import token_secrets
from core.identity.token_secrets import TokenSecrets
from core.postgres.database import Database


async def test_an_invented_secret_costs_no_valid_one(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_secrets, "_AGAIN_S", 0)
    database, away = Database(database_url), Database("postgresql://naka@127.0.0.1:1/naka", timeout_s=0.5)
    secrets = TokenSecrets(database, ttl_s=60)
    known = await secrets.newest()
    assert await secrets.find("invented") is None
    monkeypatch.setattr(secrets, "_database", away)
    for _ in range(2):
        with pytest.raises(Unavailable):
            await secrets.find("invented")
        assert await secrets.find(known.id) == known
    secrets.forget()
    with pytest.raises(Unavailable):
        await secrets.find(known.id)
    for each in (database, away):
        await each.close()
