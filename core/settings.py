"""Settings: built once at the entry point from the environment (and `.env` in development) and passed down.

No other module reads the environment. Names are the environment's own, in lower case; units stand at the end
of a name. `Settings.refuse_in_production` is the last word on what may serve real customers.
"""

from pathlib import Path
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

SANDBOX_ANTHROPIC_KEY = "sandbox-anthropic-key"
"""The key `naka up` gives the Anthropic simulator. Never a real credential; refused in production."""
SANDBOX_RAZORPAY_KEY_ID = "rzp_test_sandbox000001"
SANDBOX_RAZORPAY_KEY_SECRET = "sandbox_key_secret"  # noqa: S105 - known to everybody, refused in production
SANDBOX_RAZORPAY_WEBHOOK_SECRET = "sandbox_webhook_secret"  # noqa: S105 - the same
"""What `naka up` gives the Razorpay simulator."""


_BEATS_PER_DEATH = 4


def _split_commas(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _none_if_empty(value: object) -> object:
    return value or None


def _without_last_slash(url: str) -> str:
    return url.rstrip("/")


class SettingsError(Exception):
    """The configuration cannot work; the message names the setting and never a secret's value."""


class Settings(BaseSettings):
    """Everything the environment decides. See `.env.example` for each line in words."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", frozen=True)

    naka_env: Literal["development", "production"] = "development"
    database_url: str = ""
    redis_url: str = ""

    anthropic_api_key: SecretStr = SecretStr("")
    anthropic_admin_key: SecretStr = SecretStr("")
    anthropic_base_url: str = "https://api.anthropic.com"
    razorpay_key_id: str = ""
    razorpay_key_secret: SecretStr = SecretStr("")
    razorpay_webhook_secret: Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_split_commas)] = ()
    razorpay_webhook_max_age_s: int = Field(90_000, ge=3600, le=1_296_000)
    razorpay_base_url: Annotated[str, AfterValidator(_without_last_slash)] = "https://api.razorpay.com"

    billing_cycles: int = Field(120, ge=1, le=1200)
    billing_pay_within_days: int = Field(7, ge=1, le=90)
    billing_link_days: int = Field(30, ge=1, le=180)
    billing_addons: bool = False
    billing_refund_cap_paise: int = Field(1_000_000, ge=0)
    billing_hold_factor: int = Field(5, ge=2, le=1000)
    billing_hold_min_paise: int = Field(1_000_000, ge=0)

    upstream_connect_timeout_s: float = Field(5, gt=0, le=60)
    upstream_read_timeout_s: float = Field(60, gt=0, le=600)
    upstream_open_timeout_s: float = Field(90, gt=0, le=600)
    upstream_retries: int = Field(2, ge=0, le=5)
    upstream_max_connections: int = Field(1000, ge=1, le=100_000)

    chat_model: str = "claude-sonnet-4-6"
    chat_max_tokens: int = Field(2048, ge=1, le=128_000)
    chat_system: str = "You are a concise assistant."
    chat_keepalive_s: float = Field(15, gt=0, le=300)

    heartbeat_s: float = Field(2, gt=0, le=10)
    dead_after_s: float = Field(20, gt=0, le=600)
    spool_dir: Path = Path(".naka/spool")

    request_deadline_s: int = Field(600, ge=1, le=3600)
    request_body_max_bytes: int = Field(1_000_000, ge=1024, le=32_000_000)
    min_grant_tokens: int = Field(64, ge=1, le=4096)
    count_calls_per_minute: int = Field(30, ge=0, le=10_000)

    paise_per_usd: int | None = Field(None, ge=1, le=100_000)
    retention_months: int = Field(0, ge=0, le=600)
    retention_drop: bool = False

    session_s: int = Field(43_200, ge=60, le=2_592_000)

    cors_origins: Annotated[list[str], NoDecode, BeforeValidator(_split_commas)] = ["http://localhost:3000"]
    timezone: str = "Asia/Kolkata"

    redis_timeout_s: float = Field(0.5, gt=0, le=30)
    database_pool_size: int = Field(5, ge=1, le=100)
    database_timeout_s: float = Field(5, gt=0, le=60)
    directory_ttl_s: float = Field(10, ge=0, le=300)

    shutdown_drain_s: float = Field(0.5, ge=0, le=60)
    shutdown_grace_s: float = Field(30, ge=0, le=600)

    prometheus_multiproc_dir: Annotated[Path | None, BeforeValidator(_none_if_empty)] = None
    otel_exporter_otlp_endpoint: str = ""

    test_clock_file: Path | None = None

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "text"] = "json"

    @field_validator("timezone")
    @classmethod
    def _known_timezone(cls, value: str, _: ValidationInfo) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError) as error:
            raise ValueError(f"no such time zone: {value}") from error
        return value

    @model_validator(mode="after")
    def _death_takes_beats(self) -> Self:
        if self.dead_after_s < _BEATS_PER_DEATH * self.heartbeat_s:
            raise ValueError(f"DEAD_AFTER_S is less than {_BEATS_PER_DEATH} times HEARTBEAT_S: the living look dead")
        return self

    def require_servers(self) -> None:
        """Raises SettingsError when something that `naka serve` cannot do without is missing."""
        missing = [
            name.upper()
            for name, value in (
                ("database_url", self.database_url),
                ("redis_url", self.redis_url),
                ("anthropic_api_key", self.anthropic_api_key.get_secret_value()),
            )
            if not value
        ]
        if missing:
            raise SettingsError(f"not set: {', '.join(missing)} (`naka up` starts what is missing on this machine)")
        if self.naka_env == "production":
            self.refuse_in_production()

    def refuse_in_production(self) -> None:
        """Raises SettingsError when a secret of the sandbox would serve production."""
        if self.anthropic_api_key.get_secret_value() == SANDBOX_ANTHROPIC_KEY:
            raise SettingsError("ANTHROPIC_API_KEY is the sandbox's: production needs the real one")
        if self.anthropic_base_url.startswith("http://"):
            raise SettingsError("ANTHROPIC_BASE_URL is not https: production does not send a key in the clear")
        if self.test_clock_file is not None:
            raise SettingsError("TEST_CLOCK_FILE is for development: production lives in the present")
        self._refuse_razorpay_in_production()

    def _refuse_razorpay_in_production(self) -> None:
        hooks = [secret.get_secret_value() for secret in self.razorpay_webhook_secret]
        for name, values, sandbox in (
            ("RAZORPAY_KEY_ID", [self.razorpay_key_id], SANDBOX_RAZORPAY_KEY_ID),
            ("RAZORPAY_KEY_SECRET", [self.razorpay_key_secret.get_secret_value()], SANDBOX_RAZORPAY_KEY_SECRET),
            ("RAZORPAY_WEBHOOK_SECRET", hooks, SANDBOX_RAZORPAY_WEBHOOK_SECRET),
        ):
            if not any(values):
                raise SettingsError(f"not set: {name}: production cannot collect without it")
            if sandbox in values:
                raise SettingsError(f"{name} is the sandbox's: production needs the real one")
        if not self.razorpay_base_url.startswith("https://"):
            raise SettingsError("RAZORPAY_BASE_URL is not https: production does not send a key in the clear")
