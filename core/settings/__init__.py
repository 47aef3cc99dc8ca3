"""Settings, built once at the entry point from the environment (and `.env` in development) and passed down.

No other module reads the environment. Field names are the variables in lower case and end with their unit. Surrounding
white space is removed (secret files often end with a line break), and an empty value counts as unset.
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    AliasChoices,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from core.environment import variable
from core.features import Feature
from core.figures import Grouping
from core.network.addresses import checked_redis_url, normal_origin
from core.network.proxies import Proxies, checked_proxy
from core.postgres.url import Pooler, PostgresUrl, parse
from core.settings.sign_in import SignInSettings, split_commas

SANDBOX_ANTHROPIC_KEY = "sandbox-anthropic-key"
"""The simulators' credentials in `naka up`; refused in production."""
SANDBOX_RAZORPAY_KEY_ID = "rzp_test_sandbox000001"
SANDBOX_RAZORPAY_KEY_SECRET = "sandbox_key_secret"  # noqa: S105 - public
SANDBOX_RAZORPAY_WEBHOOK_SECRET = "sandbox_webhook_secret"  # noqa: S105 - public


_BEATS_PER_DEATH = 4
_LISTS = frozenset(
    {"cors_origins", "default_features", "no_proxy", "razorpay_webhook_secret", "oidc_scopes", "oidc_allowed_domains"}
)
_MAY_HOLD_BLANKS = frozenset({"chat_system", "oidc_name", "spool_dir", "test_clock_file", "prometheus_multiproc_dir"})
"""Texts and paths. White space inside any other value is a mistake."""


class SettingsError(Exception):
    """The configuration is invalid. The message names the setting and no value."""


class Settings(SignInSettings, BaseSettings):
    """The settings; `.env.example` describes each."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    naka_env: Literal["development", "production"] = "production"
    database_url: str = ""
    database_direct_url: str = ""
    database_migration_url: str = ""
    database_pooler: Pooler = "none"
    redis_url: Annotated[str, AfterValidator(checked_redis_url)] = ""

    anthropic_api_key: SecretStr = SecretStr("")
    anthropic_admin_key: SecretStr = SecretStr("")
    anthropic_base_url: str = "https://api.anthropic.com"
    razorpay_key_id: str = ""
    razorpay_key_secret: SecretStr = SecretStr("")
    razorpay_webhook_secret: Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(split_commas)] = ()
    razorpay_webhook_max_age_s: int = Field(90_000, ge=3600, le=1_296_000)
    razorpay_base_url: Annotated[str, AfterValidator(lambda url: url.rstrip("/"))] = "https://api.razorpay.com"

    billing_cycles: int = Field(120, ge=1, le=1200)
    billing_pay_within_days: int = Field(7, ge=1, le=90)
    billing_link_days: int = Field(30, ge=1, le=180)
    billing_addons: bool = False
    billing_refund_cap_paise: int = Field(1_000_000, ge=0)
    billing_hold_factor: int = Field(5, ge=2, le=1000)
    billing_hold_min_paise: int = Field(1_000_000, ge=0)
    invoice_logo: Path | None = None

    upstream_connect_timeout_s: float = Field(5, gt=0, le=60)
    upstream_read_timeout_s: float = Field(60, gt=0, le=600)
    upstream_open_timeout_s: float = Field(90, gt=0, le=600)
    upstream_retries: int = Field(2, ge=0, le=5)
    upstream_max_connections: int = Field(1000, ge=1, le=100_000)
    hangup_wait_s: float = Field(10, ge=0, le=600)

    chat_model: str = "claude-sonnet-4-6"
    chat_max_tokens: int = Field(2048, ge=1, le=128_000)
    chat_system: str = "You are a concise assistant."
    chat_keepalive_s: float = Field(15, gt=0, le=300)

    heartbeat_s: float = Field(2, gt=0, le=10)
    dead_after_s: float = Field(20, gt=0, le=600)
    spool_dir: Path = Path(".naka/spool")

    request_deadline_s: int = Field(600, ge=1, le=3600)
    request_body_max_bytes: int = Field(1_000_000, ge=1024, le=32_000_000)
    messages_body_max_bytes: int = Field(32_000_000, ge=1024, le=32_000_000)
    request_bodies_max_bytes: int = Field(256_000_000, ge=1024, le=100_000_000_000)
    min_grant_tokens: int = Field(64, ge=1, le=4096)
    min_tool_grant_tokens: int = Field(1024, ge=1, le=8192)
    count_calls_per_minute: int = Field(30, ge=0, le=10_000)
    messages_counts_per_minute: int = Field(600, ge=0, le=1_000_000)
    failing_requests_per_minute: int = Field(60, ge=1, le=10_000)

    default_plan: str = Field("", pattern=r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?$")
    default_user_concurrency: int = Field(20, ge=0, le=100_000)
    default_user_requests_per_minute: int = Field(120, ge=0, le=1_000_000)
    default_tenant_concurrency: int = Field(100, ge=0, le=100_000)
    default_tenant_spend_per_day_micro_usd: int = Field(50_000_000, ge=0, le=10**12)
    default_features: Annotated[frozenset[Feature], NoDecode, BeforeValidator(split_commas)] = frozenset()

    admin_requests_per_minute: int = Field(600, ge=0, le=1_000_000)
    live_views: int = Field(200, ge=1, le=10_000)
    client_write_timeout_s: float = Field(30, gt=0, le=600)

    paise_per_usd: int | None = Field(None, ge=1, le=100_000)
    show_provider_cost: bool = False
    retention_months: int = Field(0, ge=0, le=600)
    retention_drop: bool = False

    client_head_timeout_s: float = Field(10, gt=0, le=300)
    client_body_timeout_s: float = Field(30, gt=0, le=600)
    client_min_bytes_per_s: int = Field(500, ge=0, le=1_000_000)
    client_stall_timeout_s: float = Field(60, gt=0, le=600)
    client_max_connections: int = Field(2000, ge=1, le=1_000_000)
    client_max_connections_per_address: int = Field(200, ge=1, le=1_000_000)

    idempotency_minutes: int = Field(0, ge=0, le=1440)
    idempotency_answer_max_bytes: int = Field(1_000_000, ge=1024, le=64_000_000)
    idempotency_tenant_max_bytes: int = Field(50_000_000, ge=4096, le=100_000_000_000)

    session_s: int = Field(43_200, ge=60, le=2_592_000)

    naka_url: str = "http://127.0.0.1:8000"
    naka_key: SecretStr = SecretStr("")

    jwks_refresh_s: int = Field(300, ge=1, le=3600)
    jwks_keep_s: int = Field(3600, ge=0, le=86_400)
    jwks_timeout_s: float = Field(5, gt=0, le=30)

    https_proxy: Annotated[str, AfterValidator(checked_proxy)] = Field("", repr=False)
    http_proxy: Annotated[str, AfterValidator(checked_proxy)] = Field("", repr=False)
    no_proxy: str = ""

    cors_origins: Annotated[
        list[Annotated[str, AfterValidator(normal_origin)]], NoDecode, BeforeValidator(split_commas)
    ] = ["http://localhost:3000"]
    timezone: str = "Asia/Kolkata"
    digit_grouping: Grouping = "indian"

    redis_timeout_s: float = Field(0.5, gt=0, le=30)
    database_pool_size: int = Field(5, ge=1, le=100)

    report_pool_size: int = Field(3, ge=1, le=100)
    store_deadline_s: float = Field(
        5, gt=0, le=60, validation_alias=AliasChoices("store_deadline_s", "database_timeout_s")
    )
    directory_ttl_s: float = Field(10, ge=0, le=300)

    shutdown_drain_s: float = Field(0.5, ge=0, le=60)
    shutdown_grace_s: float = Field(30, ge=0, le=600)

    prometheus_multiproc_dir: Path | None = None
    otel_exporter_otlp_endpoint: str = ""

    test_clock_file: Path | None = None

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "text"] = "json"

    @model_validator(mode="before")
    @classmethod
    def _stripped(cls, given: Any) -> Any:
        """Strips white space and removes empty values. Raises ValueError for white space inside a value."""
        if not isinstance(given, Mapping):
            return given
        values = {name: value.strip() if isinstance(value, str) else value for name, value in given.items()}
        for name, value in values.items():
            if isinstance(value, str) and _is_torn(name.lower(), value):
                raise ValueError(f"{name.upper()} has white space or a control character inside")
        return {name: value for name, value in values.items() if value != ""}

    @field_validator("database_url", "database_direct_url")
    @classmethod
    def _known_parameters(cls, value: str) -> str:
        if value:
            parse(value)
        return value

    @field_validator("timezone")
    @classmethod
    def _known_timezone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError) as error:
            raise ValueError(f"no such time zone: {value}") from error
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.dead_after_s < _BEATS_PER_DEATH * self.heartbeat_s:
            raise ValueError(f"DEAD_AFTER_S must be at least {_BEATS_PER_DEATH} times HEARTBEAT_S")
        if "messages_body_max_bytes" not in self.model_fields_set:
            most = min(self.messages_body_max_bytes, self.request_bodies_max_bytes)
            object.__setattr__(self, "messages_body_max_bytes", most)  # the default fits the memory there is
        if self.request_bodies_max_bytes < max(self.request_body_max_bytes, self.messages_body_max_bytes):
            raise ValueError(
                "REQUEST_BODIES_MAX_BYTES must be at least REQUEST_BODY_MAX_BYTES and MESSAGES_BODY_MAX_BYTES"
            )
        if self.database_url:
            try:
                parse(self.database_url, self.database_pooler)
            except ValueError as error:
                raise ValueError(f"DATABASE_URL: {error}") from None
        return self

    @property
    def is_production(self) -> bool:
        """Whether this is a production installation, and not a developer's."""
        return self.naka_env == "production"

    @cached_property
    def postgres(self) -> PostgresUrl:
        """The database of every connection but the queue's. Raises SettingsError when it is not set."""
        if not self.database_url:
            raise SettingsError("not set: DATABASE_URL")
        return parse(self.database_url, self.database_pooler)

    @cached_property
    def postgres_direct(self) -> PostgresUrl:
        """The database without a pooler, for migrations and the worker's queue."""
        return parse(self.database_direct_url) if self.database_direct_url else self.postgres

    @cached_property
    def postgres_owner(self) -> PostgresUrl:
        """The database as the schema's owner, for migrations; by default as the application."""
        return parse(self.database_migration_url) if self.database_migration_url else self.postgres_direct

    @property
    def proxies(self) -> Proxies:
        """The proxies for providers and alert endpoints."""
        return Proxies(self.https_proxy, self.http_proxy, self.no_proxy)

    def require_session(self) -> None:
        """Raises SettingsError when the worker could not use LISTEN."""
        if self.postgres_direct.pooler == "transaction":
            raise SettingsError(
                "not set: DATABASE_DIRECT_URL (the worker uses LISTEN, which DATABASE_POOLER=transaction prevents)"
            )

    def require_servers(self) -> None:
        """Raises SettingsError when a setting that `naka serve` requires is missing."""
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
        faults = self.sign_in_faults(is_production=self.is_production)
        if faults:
            raise SettingsError("; ".join(faults))
        if self.is_production:
            self.refuse_in_production()

    def refuse_in_production(self) -> None:
        """Raises SettingsError for simulator credentials, plain HTTP or a test clock in production."""
        if self.anthropic_api_key.get_secret_value() == SANDBOX_ANTHROPIC_KEY:
            raise SettingsError("ANTHROPIC_API_KEY is the simulator's key: production needs a real one")
        if self.anthropic_base_url.startswith("http://"):
            raise SettingsError("ANTHROPIC_BASE_URL must be https in production")
        if self.test_clock_file is not None:
            raise SettingsError("TEST_CLOCK_FILE must not be set in production")
        hooks = [secret.get_secret_value() for secret in self.razorpay_webhook_secret]
        for name, values, sandbox in (
            ("RAZORPAY_KEY_ID", [self.razorpay_key_id], SANDBOX_RAZORPAY_KEY_ID),
            ("RAZORPAY_KEY_SECRET", [self.razorpay_key_secret.get_secret_value()], SANDBOX_RAZORPAY_KEY_SECRET),
            ("RAZORPAY_WEBHOOK_SECRET", hooks, SANDBOX_RAZORPAY_WEBHOOK_SECRET),
        ):
            if not any(values):
                raise SettingsError(f"not set: {name} (production needs it to collect payments)")
            if sandbox in values:
                raise SettingsError(f"{name} is the simulator's: production needs a real one")
        if not self.razorpay_base_url.startswith("https://"):
            raise SettingsError("RAZORPAY_BASE_URL must be https in production")


def read_settings(home: Path | None = None) -> Settings:
    """Reads the settings from the environment, in development also from `.env`. Raises SettingsError.

    `home`: the folder of a `naka up`; its settings apply, as development, when the environment names no database.
    Production reads no file.
    """
    files = [] if home is None or variable("DATABASE_URL") else [home / "env"]
    started = any(file.is_file() for file in files)
    if variable("NAKA_ENV") != "development" and (variable("NAKA_ENV") or not started):
        return build_settings()
    return build_settings(*files, Path(".env"))  # the later file wins


def build_settings(*files: Path, **given: Any) -> Settings:
    """Reads the settings from the environment, over `files` (the later wins), under `given`. Raises SettingsError."""
    try:
        return Settings(_env_file=files or None, **given)
    except ValidationError as error:
        raise SettingsError(describe_errors(error) or "the settings are invalid") from None


def describe_errors(error: ValidationError) -> str:
    """Returns the settings and their errors, without values, which pydantic's own text would show."""
    errors = []
    for item in error.errors(include_input=False, include_url=False, include_context=False):
        message = str(item["msg"]).removeprefix("Value error, ")
        errors.append(f"{str(item['loc'][0]).upper()}: {message}" if item["loc"] else message)
    return "; ".join(errors)


def _is_torn(name: str, value: str) -> bool:
    """Whether a value contains white space or a control character where none is allowed."""
    if name in _MAY_HOLD_BLANKS:
        return name != "chat_system" and not value.isprintable()
    parts = value.split(",") if name in _LISTS else [value]
    return any(char.isspace() or not char.isprintable() for part in parts for char in part.strip())
