"""The local stack of `naka up`: starts the services that are not configured, and stops them in reverse order.

Postgres and Valkey come from wheels; simulators replace the providers. The home folder keeps the data. A service that
cannot start raises `ServerUnavailable`.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import IO, cast

from core.settings import SANDBOX_RAZORPAY_KEY_ID, SANDBOX_RAZORPAY_KEY_SECRET, SANDBOX_RAZORPAY_WEBHOOK_SECRET
from core.settings.sign_in import SANDBOX_OIDC_CLIENT_ID, SANDBOX_OIDC_CLIENT_SECRET
from sandbox.anthropic.usage_report import admin_key_of
from sandbox.daemon import HOST, ServerUnavailable, kept_port

_START_S = 30
_STOP_S = 10
_PACE_MS = 25
_CLOCK = "clock"


@dataclass(frozen=True, slots=True)
class Part:
    """A service that Naka uses: its name, whether it is the real one, and its location."""

    name: str
    real: bool
    where: str


@dataclass(slots=True)
class Laptop:
    """The running services, with the environment variables that configure them and the processes to watch."""

    environment: dict[str, str] = field(default_factory=dict)
    parts: list[Part] = field(default_factory=list)
    children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)


@contextmanager
def laptop(
    home: Path,
    configured: Mapping[str, str],
    *,
    anthropic_key: str,
    api_url: str,
    tell: Callable[[str], None],
    start_s: int | None = None,
    people: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Laptop]:
    """Starts the services that `configured` (DATABASE_URL, REDIS_URL, ANTHROPIC_API_KEY, ...) does not name.

    `api_url` receives the webhooks; `tell` is called with each step. `start_s`: where the common clock of simulators
    and Naka begins, Unix seconds, in a new home folder. `people`: who can be chosen at the simulated identity provider,
    name by email. Raises ServerUnavailable.
    """
    running = Laptop()
    with ExitStack() as stack:
        _postgres(running, stack, home, configured, tell)
        _valkey(running, stack, home, configured, tell)
        simulators = (
            _anthropic(running, stack, home, configured, anthropic_key, tell),
            _razorpay(running, stack, home, configured, api_url, start_s, tell),
            _oidc(running, stack, home, configured, people, tell),
        )
        for await_ready in simulators:
            await_ready()
        yield running


def _postgres(
    running: Laptop, stack: ExitStack, home: Path, configured: Mapping[str, str], tell: Callable[[str], None]
) -> None:
    if configured.get("DATABASE_URL"):
        running.parts.append(Part("Postgres", real=True, where="DATABASE_URL"))
        return
    tell("starting Postgres" if (home / "postgres" / "data").exists() else "setting up Postgres")
    from sandbox.postgres import Postgres  # noqa: PLC0415 - the extra may be missing where it is not needed

    server = Postgres(home / "postgres")
    running.environment["DATABASE_MIGRATION_URL"] = server.start()
    running.environment["DATABASE_URL"] = server.application_url
    stack.callback(server.stop)
    running.parts.append(Part("Postgres", real=True, where=str(home / "postgres")))


def _valkey(
    running: Laptop, stack: ExitStack, home: Path, configured: Mapping[str, str], tell: Callable[[str], None]
) -> None:
    if configured.get("REDIS_URL"):
        running.parts.append(Part("Redis", real=True, where="REDIS_URL"))
        return
    tell("starting Valkey")
    from sandbox.valkey import Valkey  # noqa: PLC0415 - as above

    server = Valkey(home / "valkey")
    running.environment["REDIS_URL"] = server.start()
    stack.callback(server.stop)
    running.parts.append(Part("Valkey", real=True, where=str(home / "valkey")))


def _anthropic(
    running: Laptop,
    stack: ExitStack,
    home: Path,
    configured: Mapping[str, str],
    key: str,
    tell: Callable[[str], None],
) -> Callable[[], None]:
    if configured.get("ANTHROPIC_API_KEY"):
        return lambda: running.parts.append(Part("Anthropic", real=True, where=configured["ANTHROPIC_BASE_URL"]))
    command = ["sandbox.anthropic", "--port", "0", "--api-key", key, "--pace-ms", str(_PACE_MS)]
    command += ["--rows-file", str(home / "anthropic.rows")]
    if not configured.get("RAZORPAY_KEY_ID"):
        command += ["--clock-file", str(home / _CLOCK)]

    def variables(url: str) -> dict[str, str]:
        return {"ANTHROPIC_API_KEY": key, "ANTHROPIC_BASE_URL": url, "ANTHROPIC_ADMIN_KEY": admin_key_of(key)}

    tell("starting the Anthropic simulator")
    names = "Anthropic", "the Anthropic simulator"
    return _simulate(running, stack, names, command, home / "anthropic.log", variables)


def _razorpay(
    running: Laptop,
    stack: ExitStack,
    home: Path,
    configured: Mapping[str, str],
    api_url: str,
    start_s: int | None,
    tell: Callable[[str], None],
) -> Callable[[], None]:
    """Starts the simulator; its state and port survive restarts, so that payment links stay valid."""
    if configured.get("RAZORPAY_KEY_ID"):
        return lambda: running.parts.append(Part("Razorpay", real=True, where=configured["RAZORPAY_BASE_URL"]))
    port, clock = kept_port(home / "razorpay.port"), home / _CLOCK
    wanted = {
        "--port": str(port),
        "--public-url": f"http://{HOST}:{port}",
        "--key-id": SANDBOX_RAZORPAY_KEY_ID,
        "--key-secret": SANDBOX_RAZORPAY_KEY_SECRET,
        "--webhook-secret": SANDBOX_RAZORPAY_WEBHOOK_SECRET,
        "--webhook-url": f"{api_url}/webhooks/razorpay",
        "--clock-file": str(clock),
        "--state-file": str(home / "razorpay.state"),
    }
    if start_s is not None:
        wanted["--start"] = str(start_s)
    elif _is_behind(clock):
        clock.unlink()  # a start in the past that was killed before it reached the present
    command = ["sandbox.razorpay", *(word for option in wanted.items() for word in option)]

    def variables(url: str) -> dict[str, str]:
        return {
            "RAZORPAY_KEY_ID": SANDBOX_RAZORPAY_KEY_ID,
            "RAZORPAY_KEY_SECRET": SANDBOX_RAZORPAY_KEY_SECRET,
            "RAZORPAY_WEBHOOK_SECRET": SANDBOX_RAZORPAY_WEBHOOK_SECRET,
            "RAZORPAY_BASE_URL": url,
            "TEST_CLOCK_FILE": str(clock),
        }

    tell("starting the Razorpay simulator")
    names = "Razorpay", "the Razorpay simulator"
    return _simulate(running, stack, names, command, home / "razorpay.log", variables)


def _oidc(
    running: Laptop,
    stack: ExitStack,
    home: Path,
    configured: Mapping[str, str],
    people: Mapping[str, str],
    tell: Callable[[str], None],
) -> Callable[[], None]:
    """Starts the identity provider; its port, which is part of its issuer, survives restarts."""
    if configured.get("OIDC_ISSUER"):
        return lambda: running.parts.append(Part("Sign-in", real=True, where=configured["OIDC_ISSUER"]))
    port = kept_port(home / "oidc.port")
    issuer = f"http://{HOST}:{port}"
    command = ["sandbox.oidc", "--port", str(port), "--issuer", issuer]
    command += [word for email, name in people.items() for word in ("--person", f"{email}={name}")]

    def variables(_: str) -> dict[str, str]:
        return {
            "OIDC_ISSUER": issuer,
            "OIDC_CLIENT_ID": SANDBOX_OIDC_CLIENT_ID,
            "OIDC_CLIENT_SECRET": SANDBOX_OIDC_CLIENT_SECRET,
            "OIDC_NAME": "the simulator",
        }

    tell("starting the identity provider's simulator")
    names = "Sign-in", "the identity provider's simulator"
    return _simulate(running, stack, names, command, home / "oidc.log", variables)


def _is_behind(clock: Path) -> bool:
    with suppress(OSError, ValueError):
        return int(clock.read_text()) < 0
    return False


def _simulate(
    running: Laptop,
    stack: ExitStack,
    names: tuple[str, str],
    command: list[str],
    file: Path,
    variables: Callable[[str], dict[str, str]],
) -> Callable[[], None]:
    """Starts a simulator in a session of its own, which ends with us. Returns what waits for it and notes where it is.

    `names`: of its part and of its process. `variables`: the API's, by its URL. Waiting raises ServerUnavailable.
    """
    part, name = names
    log = stack.enter_context(file.open("ab"))
    process = subprocess.Popen(
        [sys.executable, "-m", *command, "--with-parent"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        start_new_session=True,
    )
    out = stack.enter_context(cast("IO[bytes]", process.stdout))
    stack.callback(stop_process, process)

    def await_ready() -> None:
        with out:
            line = out.readline().decode().strip()
        if not line.startswith("listening on "):
            raise ServerUnavailable(f"{name} did not start: see {file}")
        url = line.removeprefix("listening on ")
        running.children[name] = process
        running.environment |= variables(url)
        running.parts.append(Part(part, real=False, where=url))

    return await_ready


def stop_process(process: subprocess.Popen[bytes], *, within_s: float = _STOP_S) -> None:
    """SIGTERM, and SIGKILL when that is not enough."""
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        process.wait(within_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(_START_S)
    if process.stdin is not None:
        process.stdin.close()
