"""The settings, this host's disk, and the two providers."""

import asyncio
import os
import time
from pathlib import Path

from api.doctor.findings import Checkup
from api.gateway.upstream import ChatPrompt, Upstream
from billing.razorpay.client import Razorpay
from core.settings import SettingsError
from metering.journal.spool import waiting


async def settings(patient: Checkup) -> None:
    """Whether what must be set is set."""
    settings = patient.settings
    try:
        settings.require_servers()
    except SettingsError as error:
        patient.fault("settings", str(error), "set it in the environment, or in .env in development")
        return
    patient.ok("settings", f"complete for {settings.naka_env}")


async def spool(patient: Checkup) -> None:
    """Whether settlements can be written down, and none waits."""
    folder: Path = patient.settings.spool_dir
    if not await asyncio.to_thread(_writable, folder):
        patient.fault("spool", "SPOOL_DIR cannot be written", "give this user the folder; settlements wait there")
        return
    waits, poisoned = await asyncio.to_thread(waiting, folder)
    patient.judge(
        "spool",
        good=not waits,
        says="writable, and nothing waits",
        otherwise=f"{waits} settlements wait",
        mend="they are replayed by any process with this folder, once Postgres takes them",
        is_fault=False,
    )
    patient.judge(
        "poisoned settlements",
        good=not poisoned,
        says="none",
        otherwise=f"{poisoned} were refused by Postgres for their own data: they are on this disk alone",
        mend="find out why (log: row_poisoned), mend it, then run `naka spool retry`",
    )


def _writable(folder: Path) -> bool:
    """Whether it can be written, or made."""
    existing = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    return os.access(existing, os.W_OK)


async def anthropic(patient: Checkup) -> None:
    """Whether it takes the key, by a free count."""
    upstream = Upstream(patient.settings)
    try:
        await upstream.count_tokens(ChatPrompt(patient.settings.chat_model, "", "hello"))
    except Exception as error:  # noqa: BLE001 - of an error only its kind is told
        code = getattr(error, "code", type(error).__name__)
        patient.fault(
            "Anthropic", f"does not take a question: {code}", "look at ANTHROPIC_API_KEY and ANTHROPIC_BASE_URL"
        )
    else:
        patient.ok("Anthropic", f"takes the key, and knows {patient.settings.chat_model}")
    finally:
        await upstream.close()


async def razorpay(patient: Checkup) -> None:
    """Whether it takes the key, and the key is of the right mode."""
    settings = patient.settings
    if not settings.razorpay_key_id:
        patient.warn(
            "Razorpay", "RAZORPAY_KEY_ID is not set: nothing is collected", "see docs/howto/go-live-with-razorpay.md"
        )
        return
    razorpay = Razorpay.from_settings(settings)
    now_s = int(time.time())
    try:
        await razorpay.list_payments(since=now_s - 60, until=now_s)
    except Exception as error:  # noqa: BLE001 - as above
        patient.fault(
            "Razorpay", f"does not take the key: {type(error).__name__}", "look at RAZORPAY_KEY_ID and its secret"
        )
    else:
        patient.ok("Razorpay", "takes the key")
    finally:
        razorpay.close()
    live = settings.razorpay_key_id.startswith("rzp_live_")
    patient.judge(
        "Razorpay's mode",
        good=live == (settings.naka_env == "production"),
        says="live" if live else "test",
        otherwise=f"a {'live' if live else 'test'} key in {settings.naka_env}",
        mend="a live key belongs to NAKA_ENV=production, a test key to development",
        is_fault=live,
    )
    patient.judge(
        "webhook secret",
        good=bool(settings.razorpay_webhook_secret),
        says="set",
        otherwise="RAZORPAY_WEBHOOK_SECRET is not set: every delivery is refused",
        mend="copy it from the webhook's page in Razorpay's dashboard",
    )
