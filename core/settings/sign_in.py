"""The settings of sign-in at an OpenID Connect provider. Without OIDC_ISSUER, people sign in with keys only."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr
from pydantic_settings import BaseSettings, NoDecode

from core.network.addresses import normal_origin

SANDBOX_OIDC_CLIENT_ID = "naka-sandbox"
"""The simulator's credentials in `naka up`; refused in production."""
SANDBOX_OIDC_CLIENT_SECRET = "sandbox_oidc_secret"  # noqa: S105 - public
DEFAULT_SCOPES = ("openid", "email", "profile")


def split_commas(value: object) -> object:
    """The parts of a comma-separated text."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _domain(value: str) -> str:
    return value.lower().removeprefix("@").rstrip(".")


def _site(value: str) -> str:
    if value == "*":
        raise ValueError("it is one site's address")
    return normal_origin(value) if value else value


def _url(value: str) -> str:
    parts = urlsplit(value)
    if value and (parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment):
        raise ValueError("it is not an http:// or https:// URL without a query")
    return value


class SignInSettings(BaseSettings):
    """`.env.example` describes each."""

    public_url: Annotated[str, AfterValidator(_site)] = ""
    oidc_issuer: Annotated[str, AfterValidator(_url)] = ""
    oidc_client_id: str = ""
    oidc_client_secret: SecretStr = SecretStr("")
    oidc_name: str = ""
    oidc_scopes: Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_commas)] = DEFAULT_SCOPES
    oidc_allowed_domains: Annotated[
        tuple[Annotated[str, AfterValidator(_domain)], ...], NoDecode, BeforeValidator(split_commas)
    ] = ()
    oidc_role_claim: str = ""
    oidc_tenant_claim: str = ""
    oidc_operator_tenant: str = ""

    @property
    def oidc_shown_name(self) -> str:
        """The provider's name on the sign-in page: OIDC_NAME, else its host."""
        return self.oidc_name or (urlsplit(self.oidc_issuer).hostname or "")

    def sign_in_faults(self, *, is_production: bool) -> list[str]:
        """What is wrong with these settings together, named without values."""
        if not self.oidc_issuer:
            return []
        faults = ["not set: OIDC_CLIENT_ID (OIDC_ISSUER needs it)"] if not self.oidc_client_id else []
        if "openid" not in self.oidc_scopes:
            faults.append("OIDC_SCOPES must contain openid")
        if bool(self.oidc_role_claim) != bool(self.oidc_tenant_claim):
            faults.append("OIDC_ROLE_CLAIM and OIDC_TENANT_CLAIM are set together or not at all")
        if not is_production:
            return faults
        if self.oidc_client_secret.get_secret_value() == SANDBOX_OIDC_CLIENT_SECRET:
            faults.append("OIDC_CLIENT_SECRET is the simulator's: production needs a real one")
        for name, url in (("OIDC_ISSUER", self.oidc_issuer), ("PUBLIC_URL", self.public_url)):
            if not url:
                faults.append(f"not set: {name} (OIDC_ISSUER needs it: the provider sends people back there)")
            elif not url.startswith("https://"):
                faults.append(f"{name} must be https in production")
        return faults
