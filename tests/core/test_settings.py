"""Reading settings, and the refusals of a production start, by name and without values."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from core.environment import forget_blank_variables
from core.settings import (
    SANDBOX_ANTHROPIC_KEY,
    SANDBOX_RAZORPAY_KEY_ID,
    SANDBOX_RAZORPAY_KEY_SECRET,
    SANDBOX_RAZORPAY_WEBHOOK_SECRET,
    Settings,
    SettingsError,
    read_settings,
)
from core.settings.sign_in import SANDBOX_OIDC_CLIENT_SECRET

GOOD = {
    "NAKA_ENV": "production",
    "DATABASE_URL": "postgresql://naka@db/naka",
    "REDIS_URL": "redis://cache",
    "ANTHROPIC_API_KEY": "sk-ant-real",
    "RAZORPAY_KEY_ID": "rzp_live_0123456789abcd",
    "RAZORPAY_KEY_SECRET": "the-real-secret",
    "RAZORPAY_WEBHOOK_SECRET": "hook-of-now, hook-of-before",
}


@pytest.fixture(autouse=True)
def nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clears the environment."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def settings(monkeypatch: pytest.MonkeyPatch, **changed: str | None) -> Settings:
    """Reads settings from a valid production environment with changes; None: unset."""
    for name, value in {**GOOD, **changed}.items():
        if value is not None:
            monkeypatch.setenv(name, value)
    return Settings(_env_file=None)


def test_a_good_production_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    settings(monkeypatch).require_servers()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"ANTHROPIC_API_KEY": SANDBOX_ANTHROPIC_KEY}, "ANTHROPIC_API_KEY is the simulator's"),
        ({"ANTHROPIC_BASE_URL": "http://api.anthropic.com"}, "ANTHROPIC_BASE_URL must be https"),
        ({"RAZORPAY_KEY_ID": None}, "not set: RAZORPAY_KEY_ID"),
        ({"RAZORPAY_KEY_SECRET": None}, "not set: RAZORPAY_KEY_SECRET"),
        ({"RAZORPAY_WEBHOOK_SECRET": None}, "not set: RAZORPAY_WEBHOOK_SECRET"),
        ({"RAZORPAY_WEBHOOK_SECRET": " , "}, "not set: RAZORPAY_WEBHOOK_SECRET"),
        ({"RAZORPAY_KEY_ID": SANDBOX_RAZORPAY_KEY_ID}, "RAZORPAY_KEY_ID is the simulator's"),
        ({"RAZORPAY_KEY_SECRET": SANDBOX_RAZORPAY_KEY_SECRET}, "RAZORPAY_KEY_SECRET is the simulator's"),
        (
            {"RAZORPAY_WEBHOOK_SECRET": f"hook-of-now,{SANDBOX_RAZORPAY_WEBHOOK_SECRET}"},
            "RAZORPAY_WEBHOOK_SECRET is the simulator's",
        ),
        ({"RAZORPAY_BASE_URL": "http://api.razorpay.com"}, "RAZORPAY_BASE_URL must be https"),
        ({"TEST_CLOCK_FILE": "/tmp/clock"}, "TEST_CLOCK_FILE must not be set"),  # noqa: S108 - never opened
    ],
)
def test_production_refuses(monkeypatch: pytest.MonkeyPatch, changed: dict[str, str | None], said: str) -> None:
    with pytest.raises(SettingsError, match=said) as refused:
        settings(monkeypatch, **changed).require_servers()
    for name, value in (GOOD | changed).items():
        if name.endswith(("_SECRET", "_API_KEY")) and value:
            assert value not in str(refused.value)


def test_development_takes_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = dict.fromkeys(("RAZORPAY_KEY_ID", "RAZORPAY_KEY_SECRET", "RAZORPAY_WEBHOOK_SECRET"))
    settings(monkeypatch, NAKA_ENV="development", RAZORPAY_BASE_URL="http://127.0.0.1:1", **changed).require_servers()


def test_webhook_secrets_are_several_while_one_is_rotated(monkeypatch: pytest.MonkeyPatch) -> None:
    read = settings(monkeypatch, RAZORPAY_BASE_URL="https://api.razorpay.com/")
    assert read.razorpay_webhook_secret == (SecretStr("hook-of-now"), SecretStr("hook-of-before"))
    assert read.razorpay_base_url == "https://api.razorpay.com"
    assert "hook-of" not in repr(read)
    assert "the-real-secret" not in repr(read)


def test_production_is_the_default_and_reads_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("LOG_LEVEL=debug\nNAKA_ENV=development\n")
    assert (read_settings().naka_env, read_settings().log_level) == ("production", "info")
    monkeypatch.setenv("NAKA_ENV", "production")
    assert (read_settings(tmp_path).naka_env, read_settings().log_level) == ("production", "info")
    monkeypatch.setenv("NAKA_ENV", " development\n")
    assert (read_settings().naka_env, read_settings().log_level) == ("development", "debug")


def test_what_naka_up_started_is_development_unless_the_environment_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "env").write_text("NAKA_ENV=development\nDATABASE_URL=postgresql://laptop/x\n")
    assert (read_settings(tmp_path).naka_env, read_settings(tmp_path).database_url[-1]) == ("development", "x")
    monkeypatch.setenv("DATABASE_URL", "postgresql://real/x")
    assert (read_settings(tmp_path).naka_env, read_settings(tmp_path).postgres.hosts) == ("production", ("real",))
    monkeypatch.delenv("DATABASE_URL")
    monkeypatch.setenv("NAKA_ENV", "production")
    assert read_settings(tmp_path).database_url == ""


def test_white_space_around_a_value_is_not_part_of_it_and_an_empty_one_is_unset(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read = settings(
        monkeypatch,
        ANTHROPIC_API_KEY=" sk-ant-real\r\n",
        RAZORPAY_WEBHOOK_SECRET="a\n, b\n",
        DATABASE_URL="postgresql://db/x\n",
        CHAT_SYSTEM=" Be kind. ",
    )
    assert read.anthropic_api_key.get_secret_value() == "sk-ant-real"
    assert [secret.get_secret_value() for secret in read.razorpay_webhook_secret] == ["a", "b"]
    assert (read.postgres.database, read.chat_system) == ("x", "Be kind.")
    defaults = Settings(_env_file=None)
    for name in Settings.model_fields:
        monkeypatch.setenv(name.upper(), " \n" if name.startswith("c") else "")
    assert (
        Settings(_env_file=None)
        == Settings()
        == defaults.model_copy(
            update={name: field.get_default(call_default_factory=True) for name, field in Settings.model_fields.items()}
        )
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ANTHROPIC_API_KEY", "secret one"),
        ("RAZORPAY_KEY_SECRET", "secret\ttwo"),
        ("RAZORPAY_WEBHOOK_SECRET", "secret\none"),
        ("DATABASE_URL", "postgresql://u:secret word@h/x"),
        ("DATABASE_URL", "postgres:secret"),
        ("DATABASE_URL", "postgresql://u:secret@h/x?moon=1"),
        ("DATABASE_DIRECT_URL", "mysql://u:secret@h/x"),
        ("DATABASE_POOLER", "secret"),
        ("REDIS_URL", "redis+sentinel://:secret@h/x"),
        ("REDIS_URL", "redis://:secret@a:1,b:2/0"),
        ("REDIS_URL", "http://:secret@h"),
        ("REDIS_URL", "redis://:secret@h:port/0"),
        ("HTTPS_PROXY", "socks5://u:secret@h"),
        ("HTTPS_PROXY", "http://u:secret@h:port"),
        ("CORS_ORIGINS", "https://secret.example/path"),
        ("NAKA_ENV", "secret"),
        ("HEARTBEAT_S", "secret"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_by_name_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name) as refused:
        read_settings()
    assert "secret" not in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
    with pytest.raises(ValueError, match="Settings") as raw:
        Settings(_env_file=None)
    assert "secret" not in str(raw.value), "pydantic's own text would show it"


def test_origins_are_as_a_browser_sends_them(monkeypatch: pytest.MonkeyPatch) -> None:
    given = "HTTPS://App.Example:443/, http://localhost:3000/,http://[::1]:80 ,https://\u0928\u0915.example,"
    assert settings(monkeypatch, CORS_ORIGINS=given).cors_origins == [
        "https://app.example",
        "http://localhost:3000",
        "http://[::1]",
        "https://xn--11b1b.example",
    ]
    assert settings(monkeypatch, CORS_ORIGINS="*").cors_origins == ["*"]


def test_a_worker_that_could_not_listen_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    behind = settings(monkeypatch, DATABASE_POOLER="transaction")
    with pytest.raises(SettingsError, match="DATABASE_DIRECT_URL"):
        behind.require_session()
    settings(monkeypatch, DATABASE_POOLER="session").require_session()
    direct = settings(monkeypatch, DATABASE_POOLER="transaction", DATABASE_DIRECT_URL="postgresql://direct/x")
    direct.require_session()
    assert (direct.postgres.pooler, direct.postgres_direct.hosts) == ("transaction", ("direct",))


def test_what_libraries_read_themselves_is_unset_when_it_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    import os  # noqa: PLC0415 - this module builds settings, and looks at the environment only here

    for name in ("PROMETHEUS_MULTIPROC_DIR", "FORWARDED_ALLOW_IPS", "PGUSER"):
        monkeypatch.setenv(name, " ")
    forget_blank_variables()
    assert not {"PROMETHEUS_MULTIPROC_DIR", "FORWARDED_ALLOW_IPS", "PGUSER"} & set(os.environ)


def test_the_bodies_of_messages_fit_the_memory_for_bodies(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings(monkeypatch).messages_body_max_bytes == 32_000_000
    little = settings(monkeypatch, REQUEST_BODIES_MAX_BYTES="16000000")
    assert little.messages_body_max_bytes == 16_000_000
    with pytest.raises(ValueError, match="REQUEST_BODIES_MAX_BYTES"):
        settings(monkeypatch, REQUEST_BODIES_MAX_BYTES="16000000", MESSAGES_BODY_MAX_BYTES="16000001")


OIDC = {
    "OIDC_ISSUER": "https://login.example",
    "OIDC_CLIENT_ID": "naka",
    "OIDC_CLIENT_SECRET": "s3cret",
    "PUBLIC_URL": "https://naka.example/",
}


def test_people_may_sign_in_at_a_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings(monkeypatch, **OIDC, OIDC_NAME="Our directory", OIDC_ALLOWED_DOMAINS="@Acme.example, b.example.")
    found.require_servers()
    assert found.public_url == "https://naka.example"
    assert found.oidc_allowed_domains == ("acme.example", "b.example")
    assert found.oidc_shown_name == "Our directory"
    assert settings(monkeypatch, **OIDC, OIDC_NAME=None).oidc_scopes == ("openid", "email", "profile")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"OIDC_CLIENT_ID": None}, "not set: OIDC_CLIENT_ID"),
        ({"OIDC_CLIENT_SECRET": SANDBOX_OIDC_CLIENT_SECRET}, "OIDC_CLIENT_SECRET is the simulator's"),
        ({"PUBLIC_URL": None}, "not set: PUBLIC_URL"),
        ({"PUBLIC_URL": "http://naka.example"}, "PUBLIC_URL must be https"),
        ({"OIDC_ISSUER": "http://login.example"}, "OIDC_ISSUER must be https"),
        ({"OIDC_ROLE_CLAIM": "roles"}, "are set together"),
        ({"OIDC_SCOPES": "email"}, "OIDC_SCOPES must contain openid"),
    ],
)
def test_an_incomplete_provider(monkeypatch: pytest.MonkeyPatch, changed: dict[str, str | None], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        settings(monkeypatch, **{**OIDC, **changed}).require_servers()
