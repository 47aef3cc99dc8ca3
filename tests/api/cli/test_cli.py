"""`naka` as a program: what it prints, what it changes, and that what fails is one line."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any
from unittest import mock

import asyncpg
import pytest

from api.cli import main
from api.cli.commands import COMMANDS
from sandbox.daemon import free_port
from tests import servers
from tests.harness import ROOT, Books


@dataclass
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


class Naka:
    """The program, in a folder of its own, on the test's database."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        clean = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "NAKA_ENV") if name in os.environ}
        self.environment = clean | environment

    def run(self, *words: str, **more: str) -> Done:
        """Runs the console script's function to its end, in this process: starting Python each time is slow."""
        out, err = StringIO(), StringIO()
        with (
            mock.patch.dict(os.environ, self.environment | more, clear=True),
            mock.patch.object(sys, "argv", ["naka", *words]),
            chdir(self.folder),
            redirect_stdout(out),
            redirect_stderr(err),
            pytest.raises(SystemExit) as ended,
        ):
            main()
        return Done(ended.value.code if isinstance(ended.value.code, int) else 0, out.getvalue(), err.getvalue())

    def start(self, *words: str) -> "subprocess.Popen[str]":
        """Starts it as a process."""
        return subprocess.Popen(
            [sys.executable, "-m", "api.cli", *words],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def json(self, *words: str) -> Any:
        """Runs it with --json; fails with what it complained of."""
        done = self.run(*words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def fails(self, *words: str, **more: str) -> str:
        """Runs it; it must fail with one line, which is answered."""
        return self._one_line(1, self.run(*words, **more))

    def refuses_settings(self, *words: str, **more: str) -> str:
        """Runs it; it must fail with one line and the exit code of wrong settings, and the line is returned."""
        return self._one_line(2, self.run(*words, **more))

    @staticmethod
    def _one_line(code: int, done: Done) -> str:
        assert done.returncode == code, (done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        (line,) = done.stderr.splitlines()
        return line


@pytest.fixture
def naka(tmp_path: Path, database_url: str, redis_url: str) -> Naka:
    root = str(ROOT)
    return Naka(tmp_path, {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "PYTHONPATH": root})


@pytest.mark.slow
def test_from_a_tenant_to_a_key(naka: Naka) -> None:
    plan = naka.json("plan", "publish", "team", "Team", "--user", "tokens/day=1000", "--tenant-concurrency", "5")
    assert (plan["version"], plan["tenant"]["concurrency"]) == (1, 5)
    tenant = naka.json("tenant", "create", "acme", "Acme [Ltd]", "--plan", "team")
    assert tenant["plan"] == {"code": "team", "version": 1}
    assert naka.json("tenant", "show", tenant["id"]) == naka.json("tenant", "show", "acme") == tenant
    assert naka.json("tenant", "list") == [tenant]
    user = naka.json("user", "create", "acme", "ada")
    assert naka.json("user", "list", tenant["id"]) == [user]
    limits = naka.json("user", "limits", user["id"])
    assert (limits["source"], limits["limits"]) == ("plan", [{"meter": "tokens", "window": "day", "limit": 1000}])
    changed = naka.json("user", "limits", user["id"], "--set", "spend/period=5", "--concurrency", "2")
    assert changed == naka.json("user", "limits", user["id"])
    assert naka.json("tenant", "limits", "acme", "--none") == {"limits": [], "concurrency": None, "source": "set"}
    naka.json("plan", "publish", "team", "Team 2")
    assert naka.json("tenant", "plan", "acme", "team")["plan"]["version"] == 2

    key = naka.json("key", "create", user["id"], "laptop", "--scope", "tenant:admin", "--model", "claude-sonnet-4-6")
    assert (key["scopes"], key["models"]) == (["tenant:admin"], ["claude-sonnet-4-6"])
    successor = naka.json("key", "rotate", key["id"])
    assert naka.json("key", "revoke", successor["id"])["revoked_at"]
    listed = naka.json("key", "list", user["id"])
    assert [item["id"] for item in listed] == [key["id"], successor["id"]]
    assert all(item["revoked_at"] and "key" not in item for item in listed)
    assert "Acme [Ltd]" in naka.run("tenant", "list").stdout
    assert successor["prefix"] in naka.run("key", "list", user["id"]).stdout


def test_limits_of_a_tag(naka: Naka) -> None:
    naka.json("tenant", "create", "acme", "Acme")
    tag = "conversation=c 42"
    made = naka.json("tenant", "limit-tag", "acme", tag, "--set", "tokens/day=1500", "--set", "spend/period=5")
    assert (made["key"], made["value"]) == ("conversation", "c 42")
    assert [(one["meter"], one["limit"], one["used"]) for one in made["limits"]] == [
        ("tokens", 1500, 0),
        ("spend", 5, 0),
    ]
    assert naka.json("tenant", "tag-limits", "acme", "--key", "conversation") == [made]
    assert "declare the key `feature` first" in naka.fails(
        "tenant", "limit-tag", "acme", "feature=x", "--set", "tokens/day=1"
    )
    assert "limits" in naka.fails("tenant", "limit-tag", "acme", tag)
    assert "KEY=VALUE" in naka.fails("tenant", "unlimit-tag", "acme", "conversation")
    assert "Removed." in naka.run("tenant", "unlimit-tag", "acme", tag).stdout
    assert naka.json("tenant", "tag-limits", "acme") == []


def test_prices(naka: Naka) -> None:
    band = ("--band", "0:1:2:3:4:5", "--band", "200000:2:4:6:8:10")
    price = naka.json("price", "add", "claude-next", "2031-01-01T00:00:00Z", *band)
    assert [entry["input_rate"] for entry in price["bands"]] == [1, 2]
    assert price in naka.json("price", "list")
    assert naka.run("price", "withdraw", price["id"]).returncode == 0
    assert "no such price" in naka.fails("price", "withdraw", price["id"])
    assert "a band is" in naka.fails("price", "add", "m", "2031-01-01T00:00:00Z", "--band", "0:1")


def test_prices_with_modifiers(naka: Naka) -> None:
    new = ("price", "add", "claude-next", "2031-01-01T00:00:00Z", "--band", "0:1:2:3:4:5")
    price = naka.json(
        *new, "--factor", "speed:fast=2000", "--factor", "inference_geo:us=1100", "--web-search-rate", "9"
    )
    assert price["factors"] == {"speed:fast": 2000, "inference_geo:us": 1100}
    assert price["web_search_rate"] == 9
    assert price in naka.json("price", "list")
    assert "a factor is" in naka.fails(*new, "--factor", "speed:fast=2x")
    assert "a modifier is" in naka.fails(*new, "--factor", "colour:red=2000")


def test_a_tree_of_keys_ends_and_a_person_is_exported_and_erased(naka: Naka) -> None:
    naka.json("tenant", "create", "acme", "Acme")
    user = naka.json("user", "create", "acme", "ada")
    key = naka.json("key", "create", user["id"], "laptop")
    assert [one["id"] for one in naka.json("key", "revoke", key["id"], "--descendants")] == [key["id"]]
    known = json.loads(naka.run("user", "export", user["id"]).stdout)
    assert (known["user"]["external_id"], [one["name"] for one in known["keys"]]) == ("ada", ["laptop"])
    assert naka.json("user", "erase", user["id"], "--yes")["again"] is False
    assert naka.json("user", "erase", user["id"], "--yes")["again"] is True
    (listed,) = naka.json("user", "list", "acme")
    assert listed["external_id"].startswith("erased-")
    assert "no such user" in naka.fails("user", "export", key["id"])


async def test_a_change_is_audited_and_published(naka: Naka, database_url: str, redis_url: str) -> None:
    books = Books(database_url)
    account = await books.account()
    await books.close()
    from redis.asyncio import Redis  # noqa: PLC0415 - only here

    async with Redis.from_url(redis_url) as redis, redis.pubsub() as pubsub:
        await pubsub.subscribe("naka:changes")
        await asyncio.to_thread(naka.json, "key", "revoke", str(account.key_id))
        async with asyncio.timeout(10):  # other workers' news is heard, too: the channel is the whole server's
            async for message in pubsub.listen():
                if message["data"] == str(account.tenant_id).encode():
                    break
    connection = await asyncpg.connect(servers.asyncpg_dsn(database_url))
    actor = await connection.fetchval("SELECT actor FROM audit_log ORDER BY id DESC LIMIT 1")
    await connection.close()
    assert actor.startswith("cli:")


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [("tenant", "list"), ("tenant", "show", "acme"), ("user", "list", "acme"), ("key", "list", "{user}")]
)
def test_a_command_that_lists_imports_no_server_and_no_sdk(naka: Naka, words: tuple[str, ...]) -> None:
    naka.json("tenant", "create", "acme", "Acme")
    user = naka.json("user", "create", "acme", "ada")["id"]
    look = (
        "import atexit, sys; from api.cli import main; heavy = {'fastapi', 'starlette', 'uvicorn', 'anthropic', "
        "'razorpay', 'aiohttp', 'redis'}; "
        "atexit.register(lambda: print(sorted(heavy & set(sys.modules)), file=sys.stderr)); main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", look, *(word.format(user=user) for word in words)],
        cwd=naka.folder, env=naka.environment, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert (done.stderr, "Traceback" in done.stdout) == ("[]\n", False)


def test_the_help_lists_every_command_without_its_module(naka: Naka) -> None:
    said = naka.run("--help").stdout
    assert all(name in said and entry.panel in said for name, entry in COMMANDS.items())
    for name in COMMANDS:
        assert COMMANDS[name].help.split(".")[0][:40] in naka.run(name, "--help").stdout
    assert "Did you mean 'tenant'" in naka.run("tenan").stderr


@pytest.mark.slow
def test_as_a_process_it_says_one_line(naka: Naka) -> None:
    with naka.start("tenant", "show", "none") as process:
        assert process.communicate(timeout=60) == ("", "naka: no such tenant\n")
    assert process.returncode == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tenant", "show", "none"], "no such tenant"),
        (["tenant", "create", "Not A Slug", "x"], "slug"),
        (["tenant", "create", "a", "x", "--plan", "none"], "no such plan"),
        (["user", "limits", "01920000-0000-7000-8000-000000000001"], "no such user"),
        (["tenant", "limits", "a", "--set", "tokens"], "a limit is"),
        (["tenant", "limits", "a", "--set", "tokens/year=1"], "window"),
        (["key", "create", "01920000-0000-7000-8000-000000000001", "k", "--expires-at", "soon"], "expires_at"),
    ],
)
def test_what_cannot_be_done_is_one_line(naka: Naka, words: list[str], said: str) -> None:
    assert said in naka.fails(*words)


def test_a_server_that_is_away_is_one_line(naka: Naka, database_url: str) -> None:
    nowhere = "postgresql://u:secret@127.0.0.1:1/x"
    assert "does not answer" in naka.fails("tenant", "list", DATABASE_URL=nowhere)
    assert "does not answer" in naka.fails("migrate", DATABASE_URL=nowhere)
    assert "DATABASE_URL: it is not a URL" in naka.refuses_settings("tenant", "list", DATABASE_URL="nonsense")
    assert "no such database" in naka.fails("tenant", "list", DATABASE_URL=servers.at_path(database_url, "none"))
    scheme, _, rest = database_url.partition("://")
    wrong = f"{scheme}://nobody:x@{rest.partition('@')[2]}"
    assert "refuses" in naka.fails("tenant", "list", DATABASE_URL=wrong)
    assert "DATABASE_POOL_SIZE" in naka.refuses_settings("tenant", "list", DATABASE_POOL_SIZE="many")
    assert "DATABASE_URL is not set" in naka.refuses_settings("tenant", "list", DATABASE_URL="")
    assert "ANTHROPIC_API_KEY" in naka.refuses_settings("serve", DATABASE_URL=nowhere)


def test_redis_away_costs_no_change(naka: Naka) -> None:
    naka.environment["REDIS_URL"] = "redis://127.0.0.1:1/0"
    tenant = naka.json("tenant", "create", "acme", "Acme")
    done = naka.run("tenant", "limits", "acme", "--none", "--json")
    assert (done.returncode, json.loads(done.stdout)["source"]) == (0, "set")
    assert "change_not_published" in done.stderr
    assert naka.json("tenant", "list") == [tenant]


def test_the_home_of_naka_up_is_used(naka: Naka, database_url: str) -> None:
    del naka.environment["DATABASE_URL"]
    (naka.folder / ".naka").mkdir()
    (naka.folder / ".naka" / "env").write_text(f"DATABASE_URL={database_url}\n")
    assert naka.json("tenant", "list") == []
    (naka.folder / ".env").write_text("DATABASE_URL=postgresql://u:p@127.0.0.1:1/x\n")
    assert "does not answer" in naka.fails("tenant", "list")


@pytest.mark.slow
def test_migrate_makes_the_schema_and_can_be_repeated(naka: Naka, postgres_url: str) -> None:
    empty = {"DATABASE_URL": postgres_url}
    assert "naka migrate" in naka.fails("tenant", "list", **empty)
    for _ in range(2):
        done = naka.run("migrate", **empty)
        assert done.returncode == 0, done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert naka.run("tenant", "list", **empty).returncode == 0


def test_a_spool_that_cannot_be_used_stops_the_start(naka: Naka) -> None:
    (naka.folder / "file").write_text("")
    for command in ("serve", "worker"):
        said = naka.refuses_settings(
            command, ANTHROPIC_API_KEY="never-used", SPOOL_DIR=str(naka.folder / "file" / "spool")
        )
        assert said == "naka: SPOOL_DIR cannot be used: Not a directory"


def test_serve_on_a_taken_port_is_one_line(naka: Naka) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"port {port}" in naka.fails("serve", "--port", str(port), ANTHROPIC_API_KEY="never-used")


@pytest.mark.slow
def test_serve_answers_ends_and_refuses_noise_in_the_one_shape(naka: Naka) -> None:
    port = free_port()
    naka.environment["ANTHROPIC_API_KEY"] = "never-used"
    with naka.start("serve", "--port", str(port)) as server:
        try:
            assert server.stderr is not None
            assert server.stderr.readline() == f"Naka listens on http://127.0.0.1:{port}\n"
            with socket.create_connection(("127.0.0.1", port), 20) as line:
                line.sendall(b"GET /\x00 nonsense\r\n\r\n")
                head, _, body = b"".join(iter(lambda: line.recv(65536), b"")).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 400 ")
            assert b"content-type: application/problem+json" in head
            problem = json.loads(body)
            assert (problem["status"], problem["code"]) == (400, "bad_request")
            assert f"x-request-id: {problem['request_id']}".encode() in head
        finally:
            server.terminate()
            server.communicate(timeout=30)
