"""Checks of the providers: Anthropic, Razorpay, and the one where people sign in."""

import time

from api.auth.oidc import OidcClient
from api.doctor.findings import Checkup
from api.gateway.upstream.client import Upstream
from api.gateway.upstream.prompts import ChatPrompt
from billing.razorpay.client import Razorpay
from core.errors import Unavailable


async def anthropic(checkup: Checkup) -> None:
    """Anthropic accepts the key, tried with a free token count."""
    upstream = Upstream(checkup.settings)
    try:
        await upstream.count_tokens(ChatPrompt(checkup.settings.chat_model, "", "hello"))
    except Exception as error:  # noqa: BLE001 - an error's text may contain a secret
        code = getattr(error, "code", type(error).__name__)
        checkup.fault("Anthropic", f"does not answer: {code}", "check ANTHROPIC_API_KEY and ANTHROPIC_BASE_URL")
    else:
        checkup.ok("Anthropic", f"accepts the key, and knows {checkup.settings.chat_model}")
    finally:
        await upstream.close()


async def razorpay(checkup: Checkup) -> None:
    """Razorpay accepts the key, and the key's mode fits NAKA_ENV."""
    settings = checkup.settings
    if not settings.razorpay_key_id:
        checkup.warn(
            "Razorpay", "RAZORPAY_KEY_ID is not set: nothing is collected", "see docs/howto/go-live-with-razorpay.md"
        )
        return
    razorpay = Razorpay.from_settings(settings)
    now_s = int(time.time())
    try:
        await razorpay.list_payments(since=now_s - 60, until=now_s)
    except Exception as error:  # noqa: BLE001 - as above
        checkup.fault(
            "Razorpay", f"does not accept the key: {type(error).__name__}", "check RAZORPAY_KEY_ID and its secret"
        )
    else:
        checkup.ok("Razorpay", "accepts the key")
    finally:
        razorpay.close()
    live = settings.razorpay_key_id.startswith("rzp_live_")
    checkup.judge(
        "Razorpay's mode",
        good=live == settings.is_production,
        says="live" if live else "test",
        otherwise=f"a {'live' if live else 'test'} key in {settings.naka_env}",
        mend="a live key belongs to NAKA_ENV=production, a test key to development",
        is_fault=live,
    )
    checkup.judge(
        "webhook secret",
        good=bool(settings.razorpay_webhook_secret),
        says="set",
        otherwise="RAZORPAY_WEBHOOK_SECRET is not set: every delivery is refused",
        mend="copy it from the webhook's page in Razorpay's dashboard",
    )


async def sign_in(checkup: Checkup) -> None:
    """The identity provider answers as OpenID Connect says, if there is one."""
    settings, name = checkup.settings, "sign-in"
    if not settings.oidc_issuer:
        return
    faults = settings.sign_in_faults(is_production=settings.is_production)
    if faults:
        checkup.fault(name, "; ".join(faults), "see docs/howto/sign-in.md")
        return
    client = OidcClient(settings)
    try:
        await client.begin(f"{settings.public_url}/sign-in/oidc/callback")
    except Unavailable:
        checkup.fault(
            name,
            "the identity provider does not answer, or its metadata names another issuer or no https",
            "open OIDC_ISSUER with /.well-known/openid-configuration: its issuer must be exactly OIDC_ISSUER",
        )
    else:
        checkup.ok(name, f"{settings.oidc_shown_name} answers")
    finally:
        await client.close()
