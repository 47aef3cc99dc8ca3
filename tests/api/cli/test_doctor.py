"""`naka doctor`: all well on a good set-up; what breaks is named with what mends it; no secret is ever said."""

import asyncio
import json
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.doctor.checkup import examine
from api.doctor.findings import Verdict
from core.settings import Settings
from core.tenancy.principal import Scope
from sandbox.daemon import free_port
from tests import fork_server, servers
from tests.api.cli.test_cli import Naka
from tests.harness import SIMULATOR_KEY, Books, Razorpay, Simulator
from tests.journeys.shop import OPERATOR

_WORKED = """INSERT INTO pgqueuer.pgqueuer_schedules (expression, entrypoint, next_run, last_run, status)
    VALUES ('* * * * *', 'prune', now(), now(), 'queued')"""
_PARKED = """INSERT INTO webhook_events (event_id, kind, body, received_ms, state, due_ms)
    VALUES ('e', 'k', '', 1, 'parked', 1)"""
_ON_A_PLAN = "UPDATE tenants SET plan_code = 'free', plan_version = 1"
SECRETS = ("anthropic_secret", "rzp_secret", "whsec_secret", "database_secret", "redis_secret")


@pytest.fixture(scope="module")
def providers() -> Iterator[tuple[Simulator, Razorpay]]:
    simulator = Simulator()
    with Razorpay() as razorpay:
        yield simulator, razorpay
    simulator.stop()


@pytest.fixture
def given(database_url: str, redis_url: str, providers: tuple[Simulator, Razorpay], tmp_path: Path) -> dict[str, Any]:
    """The settings of a set-up in order."""
    simulator, razorpay = providers
    return {
        "database_url": database_url,
        "redis_url": redis_url,
        "anthropic_api_key": SIMULATOR_KEY,
        "anthropic_base_url": simulator.url,
        "spool_dir": tmp_path / "spool",
        **{name.lower(): value for name, value in razorpay.env.items()},
    }


async def found(given: dict[str, Any], **changed: Any) -> dict[str, tuple[Verdict, str]]:
    """What is said of each, with what would mend it."""
    findings = await examine(Settings(_env_file=None, **(given | changed)))
    return {finding.name: (finding.verdict, f"{finding.says} | {finding.mend}") for finding in findings}


async def bring_in_order(database_url: str) -> None:
    """An operator, a process, a worker and a check of the books, as they would be there after a day."""
    books = Books(database_url)
    await books.account(scopes=[Scope.PLATFORM_ADMIN])
    for statement in (
        "INSERT INTO processes (id, host, pid, beat, progress) VALUES (gen_random_uuid(), 'h', 1, 1, '[]')",
        "INSERT INTO reconciliations (id, drifts, report) VALUES (gen_random_uuid(), 0, '{}')",
        _WORKED,
    ):
        await books.fetch(statement)
    await books.fetch("INSERT INTO plans (code, version, name, limits) VALUES ('free', 1, 'Free', '{}')")
    await books.fetch(_ON_A_PLAN)
    await books.fetch("INSERT INTO operator_profile (id, profile) VALUES (1, $1)", json.dumps(OPERATOR))
    await books.close()


@pytest.mark.slow
async def test_tenants_without_a_plan_are_named(given: dict[str, Any]) -> None:
    await bring_in_order(given["database_url"])
    books = Books(given["database_url"])
    await books.account()
    verdict, words = (await found(given, default_plan="free"))["plans"]
    assert verdict is Verdict.WARNING
    assert "1 tenants have neither a plan nor a subscription" in words
    assert "naka tenant plan" in words
    await books.fetch(_ON_A_PLAN)
    await books.close()
    verdict, words = (await found(given))["plans"]
    assert verdict is Verdict.WARNING
    assert "DEFAULT_PLAN is not set" in words
    verdict, words = (await found(given, default_plan="gone"))["plans"]
    assert verdict is Verdict.FAULT
    assert "DEFAULT_PLAN gone does not exist" in words


@pytest.mark.slow
@pytest.mark.parametrize("state", ["draft", "withdrawn"])
async def test_a_default_plan_that_is_not_on_offer_is_named(given: dict[str, Any], state: str) -> None:
    await bring_in_order(given["database_url"])
    books = Books(given["database_url"])
    await books.fetch("UPDATE plans SET state = $1 WHERE code = 'free'", state)
    await books.close()
    verdict, words = (await found(given, default_plan="free"))["plans"]
    assert verdict is Verdict.FAULT
    assert f"DEFAULT_PLAN free has no version on offer ({state})" in words
    assert "naka plan offer free VERSION" in words


@pytest.mark.slow
async def test_a_good_set_up_is_well(given: dict[str, Any]) -> None:
    await bring_in_order(given["database_url"])
    wrong = {
        name: said for name, said in (await found(given, default_plan="free")).items() if said[0] is not Verdict.OK
    }
    assert set(wrong) <= {"durability"}, wrong  # the tests' own Postgres does without fsync


@pytest.mark.slow
async def test_what_is_broken_is_named_and_the_rest_is_looked_at(given: dict[str, Any]) -> None:
    said = await found(given, redis_url=f"redis://:redis_secret@127.0.0.1:{free_port()}/0")
    assert said["Redis"] == (Verdict.FAULT, "cannot be reached: ConnectionError | check REDIS_URL")
    assert said["clocks"] == (Verdict.UNCHECKED, "it needs Redis | ")
    assert said["schema"][0] is Verdict.OK
    assert said["worker"] == (Verdict.FAULT, "none ever ran | run `naka worker`")
    assert said["operator's profile"][0] is Verdict.FAULT

    said = await found(given, database_url=f"postgresql://naka:database_secret@127.0.0.1:{free_port()}/none")
    assert said["Postgres"][0] is Verdict.FAULT
    assert said["months"] == (Verdict.UNCHECKED, "it needs Postgres | ")
    assert said["Redis"][0] is Verdict.OK

    said = await found(given, anthropic_api_key="anthropic_secret", razorpay_key_secret="rzp_secret")
    assert said["Anthropic"][0] is Verdict.FAULT
    assert said["Razorpay"][0] is Verdict.FAULT
    assert said["webhook secret"][0] is Verdict.OK

    said = await found(given, chat_model="claude-none")
    assert said["prices"][0] is Verdict.FAULT


@pytest.mark.slow
async def test_what_waits_for_a_person_is_a_warning(given: dict[str, Any]) -> None:
    books = Books(given["database_url"])
    await books.fetch(_PARKED)
    await books.fetch("INSERT INTO reconciliations (id, drifts, report) VALUES (gen_random_uuid(), 3, '{}')")
    said = await found(given)
    await books.close()
    assert said["webhooks"][0] is Verdict.WARNING
    assert "replay" in said["webhooks"][1]
    assert said["books"] == (
        Verdict.FAULT,
        "the last check found 3 drifts | run `naka reconcile`, which suggests repairs",
    )


@pytest.mark.slow
async def test_an_empty_database_wants_to_be_migrated(
    given: dict[str, Any], shared_servers: servers.Servers, worker: str
) -> None:
    name = f"naka_doctor_{worker}"
    empty = await asyncio.to_thread(servers.create_database, shared_servers.postgres, name)
    said = await found(given, database_url=empty)
    await asyncio.to_thread(servers.drop_database, shared_servers.postgres, name)
    assert said["schema"][0] is Verdict.FAULT
    assert said["schema"][1].endswith("| run `naka migrate`")
    assert said["prices"] == (Verdict.UNCHECKED, "it needs the schema | ")


@pytest.mark.slow
async def test_a_role_that_owns_the_schema_and_a_privilege_too_many_are_warnings(given: dict[str, Any]) -> None:
    books = Books(given["database_url"])
    await books.fetch("GRANT UPDATE ON audit_log TO naka_app")
    await books.close()
    said = await found(given, database_url=servers.owner(given["database_url"]))
    assert said["database role"][0] is Verdict.WARNING
    assert "DATABASE_MIGRATION_URL" in said["database role"][1]
    assert said["privileges"][0] is Verdict.WARNING
    assert said["privileges"][1].startswith("not as declared: TABLE public.audit_log | run `naka migrate`")
    assert (await found(given))["database role"][0] is Verdict.OK


@pytest.mark.slow
async def test_no_secret_is_said(given: dict[str, Any]) -> None:
    port = free_port()
    said = await found(
        given,
        naka_env="production",
        anthropic_api_key="anthropic_secret",
        razorpay_key_secret="rzp_secret",
        razorpay_webhook_secret="whsec_secret",
        database_url=f"postgresql://naka:database_secret@127.0.0.1:{port}/none",
        redis_url=f"redis://:redis_secret@127.0.0.1:{port}/0",
    )
    assert said["settings"][0] is Verdict.FAULT
    assert not [secret for secret in SECRETS if secret in str(said)]


@pytest.mark.slow
def test_as_a_command(naka: Naka) -> None:
    done = naka.run("doctor", "--json")
    assert done.returncode == 1
    assert '"name":"worker"' in done.stdout
    done = naka.run("doctor", DATABASE_POOL_SIZE="none")
    assert done.returncode == 1
    assert "DATABASE_POOL_SIZE" in done.stdout
    assert "fault" in naka.run("doctor").stdout


@pytest.fixture
def naka(tmp_path: Path, database_url: str, redis_url: str) -> Naka:
    return Naka(tmp_path, {"DATABASE_URL": database_url, "REDIS_URL": redis_url})


async def test_a_low_limit_of_descriptors_is_a_warning_and_an_absurd_one_a_fault(given: dict[str, Any]) -> None:
    many = {"client_max_connections": 900_000, "upstream_max_connections": 100_000}
    verdict, said = (await found(given, **many))["file descriptors"]

    assert verdict is (Verdict.OK if resource.getrlimit(resource.RLIMIT_NOFILE)[1] > 1_000_200 else Verdict.WARNING)
    assert "needed at most" in said or "raise the limit" in said


@pytest.mark.slow
async def test_the_identity_provider(given: dict[str, Any]) -> None:
    process, url = fork_server.listening("sandbox.oidc", "--port", "0")
    oidc = {"naka_env": "development", "oidc_issuer": url, "oidc_client_id": "naka", "oidc_client_secret": "s3cret"}
    try:
        assert "sign-in" not in await found(given, naka_env="development")
        assert (await found(given, **oidc))["sign-in"][0] is Verdict.OK
        verdict, said = (await found(given, **oidc | {"oidc_issuer": f"{url}/"}))["sign-in"]
        assert (verdict, "exactly OIDC_ISSUER" in said) == (Verdict.FAULT, True), "another issuer"
        assert (await found(given, **oidc | {"oidc_client_id": ""}))["sign-in"][0] is Verdict.FAULT
    finally:
        fork_server.stop(process)
