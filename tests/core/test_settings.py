"""What a production start refuses, by name and without a secret's value; and how lists and addresses are read."""

import pytest
from pydantic import SecretStr

from core.settings import (
    SANDBOX_ANTHROPIC_KEY,
    SANDBOX_RAZORPAY_KEY_ID,
    SANDBOX_RAZORPAY_KEY_SECRET,
    SANDBOX_RAZORPAY_WEBHOOK_SECRET,
    Settings,
    SettingsError,
)

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
    """Nothing is set but what the test sets."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def settings(monkeypatch: pytest.MonkeyPatch, **changed: str | None) -> Settings:
    """Read from an environment that is good for production but for what is `changed`; None: not set."""
    for name, value in {**GOOD, **changed}.items():
        if value is not None:
            monkeypatch.setenv(name, value)
    return Settings(_env_file=None)


def test_a_good_production_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    settings(monkeypatch).require_servers()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"ANTHROPIC_API_KEY": SANDBOX_ANTHROPIC_KEY}, "ANTHROPIC_API_KEY is the sandbox's"),
        ({"ANTHROPIC_BASE_URL": "http://api.anthropic.com"}, "ANTHROPIC_BASE_URL is not https"),
        ({"RAZORPAY_KEY_ID": None}, "not set: RAZORPAY_KEY_ID"),
        ({"RAZORPAY_KEY_SECRET": None}, "not set: RAZORPAY_KEY_SECRET"),
        ({"RAZORPAY_WEBHOOK_SECRET": None}, "not set: RAZORPAY_WEBHOOK_SECRET"),
        ({"RAZORPAY_WEBHOOK_SECRET": " , "}, "not set: RAZORPAY_WEBHOOK_SECRET"),
        ({"RAZORPAY_KEY_ID": SANDBOX_RAZORPAY_KEY_ID}, "RAZORPAY_KEY_ID is the sandbox's"),
        ({"RAZORPAY_KEY_SECRET": SANDBOX_RAZORPAY_KEY_SECRET}, "RAZORPAY_KEY_SECRET is the sandbox's"),
        (
            {"RAZORPAY_WEBHOOK_SECRET": f"hook-of-now,{SANDBOX_RAZORPAY_WEBHOOK_SECRET}"},
            "RAZORPAY_WEBHOOK_SECRET is the sandbox's",
        ),
        ({"RAZORPAY_BASE_URL": "http://api.razorpay.com"}, "RAZORPAY_BASE_URL is not https"),
        ({"TEST_CLOCK_FILE": "/tmp/clock"}, "TEST_CLOCK_FILE is for development"),  # noqa: S108 - never opened
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
