"""The process itself: what the system lets it have."""

from api.doctor.findings import Checkup
from core.descriptors import FEWEST, connections_that_fit, needed, raise_limit


async def descriptors(patient: Checkup) -> None:
    """Whether there are file descriptors for all connections that the settings allow."""
    limit, wanted = raise_limit(), needed(patient.settings)
    few = connections_that_fit(patient.settings, limit)
    patient.judge(
        "file descriptors",
        good=limit >= wanted,
        says=f"{limit} allowed, {wanted} needed at most",
        otherwise=f"only {limit} allowed, and the settings need {wanted}: a process accepts {few} clients",
        mend="raise the limit (ulimit -n, LimitNOFILE=, ulimits:), or lower CLIENT_MAX_CONNECTIONS",
        is_fault=limit < FEWEST,
    )
