"""Checks of this host: the settings, the process's limits, the spool on its disk."""

import asyncio
import os
from pathlib import Path

from api.doctor.findings import Checkup
from core.descriptors import FEWEST, connections_that_fit, descriptors_needed, raise_limit
from core.settings import SettingsError
from metering.journal.spool import waiting


async def settings(checkup: Checkup) -> None:
    """Required settings are present."""
    settings = checkup.settings
    try:
        settings.require_servers()
    except SettingsError as error:
        checkup.fault("settings", str(error), "set it in the environment, or in .env in development")
        return
    checkup.ok("settings", f"complete for {settings.naka_env}")


async def spool(checkup: Checkup) -> None:
    """The spool is writable, and no settlement waits in it."""
    folder: Path = checkup.settings.spool_dir
    if not await asyncio.to_thread(_writable, folder):
        checkup.fault(
            "spool",
            "SPOOL_DIR is not writable",
            "make this user its owner: settlements wait there while Postgres is down",
        )
        return
    waits, poisoned = await asyncio.to_thread(waiting, folder)
    checkup.judge(
        "spool",
        good=not waits,
        says="writable and empty",
        otherwise=f"{waits} settlements wait",
        mend="any process with this folder replays them once Postgres is up",
        is_fault=False,
    )
    checkup.judge(
        "poisoned settlements",
        good=not poisoned,
        says="none",
        otherwise=f"{poisoned} were refused by Postgres for their own data, and exist only on this disk",
        mend="fix the cause (log event row_poisoned), then run `naka spool retry`",
    )


def _writable(folder: Path) -> bool:
    """Whether the folder can be written or created."""
    existing = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    return os.access(existing, os.W_OK)


async def descriptors(checkup: Checkup) -> None:
    """The limit of file descriptors allows every connection that the settings allow."""
    limit, wanted = raise_limit(), descriptors_needed(checkup.settings)
    few = connections_that_fit(checkup.settings, limit)
    checkup.judge(
        "file descriptors",
        good=limit >= wanted,
        says=f"{limit} allowed, {wanted} needed at most",
        otherwise=f"only {limit} allowed, the settings need {wanted}: a process accepts {few} clients",
        mend="raise the limit (ulimit -n, LimitNOFILE=, ulimits:), or lower CLIENT_MAX_CONNECTIONS",
        is_fault=limit < FEWEST,
    )
