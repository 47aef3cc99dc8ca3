"""The real nginx with our configuration files before the API, and a name server.

The files are filled in as the image and the comments of standalone.conf say. nginx is Debian's; without it the tests
are skipped, or fail when REQUIRE_BROWSER=1.
"""

import os
import re
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from sandbox.daemon import free_port
from tests.harness import ROOT, client

TEMPLATE = ROOT / "deploy" / "nginx" / "naka.conf.template"
STANDALONE = ROOT / "deploy" / "nginx" / "standalone.conf"
MAX_BODY_BYTES = 1_000_000
MAX_MESSAGES_BODY_BYTES = 32_000_000
API_NAME = "api"
_START_S = 10
_HOST = "127.0.0.1"
_FRAME = """
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log warn;
events {{ worker_connections 256; }}
http {{
    client_body_temp_path {folder}/client_body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {conf};
}}
"""


@dataclass(frozen=True)
class Front:
    """The address of nginx, and how to connect to it."""

    name: str
    port: int
    log: Path
    certificate: Path | None = None

    @property
    def tls(self) -> ssl.SSLContext | None:
        """The TLS context that trusts it; None for plain HTTP."""
        return None if self.certificate is None else ssl.create_default_context(cafile=self.certificate)

    @property
    def url(self) -> str:
        """The base URL, without a trailing slash."""
        return f"{'https' if self.certificate else 'http'}://{_HOST}:{self.port}"

    def client(self, address: str = _HOST) -> Any:
        """Opens a client with this loopback address that follows no redirect."""
        transport = httpx2.AsyncHTTPTransport(verify=self.tls or False, local_address=address)
        return client(self.url, transport=transport)


class Names(threading.Thread):
    """A name server with one address for every name, valid for 600 s as Docker's. `address` may change."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.address = _HOST
        self.asked = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((_HOST, 0))
        self.port: int = self._socket.getsockname()[1]

    def run(self) -> None:
        """Answers until `close`."""
        while True:
            question, sender = self._socket.recvfrom(512)
            if not question:
                return
            self.asked += 1
            head = question[:2] + struct.pack(">5H", 0x8180, 1, 1, 0, 0)
            answer = struct.pack(">3HIH", 0xC00C, 1, 1, 600, 4) + socket.inet_aton(self.address)
            end = question.index(b"\0", 12) + 5
            self._socket.sendto(head + question[12:end] + answer, sender)

    def close(self) -> None:
        """Ends the thread."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
            own.sendto(b"", (_HOST, self.port))
        self.join(5)
        self._socket.close()


def missing(program: str) -> None:
    """Skips the test, or fails where everything is required, when the program is missing."""
    if shutil.which(program):
        return
    reason = f"no {program} on the path"
    if os.environ.get("REQUIRE_BROWSER") == "1":
        pytest.fail(f"REQUIRE_BROWSER=1, but {reason}")
    pytest.skip(reason)


def compose_service(name: str) -> dict[str, Any]:
    """Returns a service of docker-compose.yml."""
    service: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"][name]
    return service


def render(template: str, values: Mapping[str, str]) -> str:
    """Fills in a template as the image's envsubst does, for variables that NGINX_ENVSUBST_FILTER matches."""
    wanted = re.compile(compose_service("proxy")["environment"]["NGINX_ENVSUBST_FILTER"])

    def put(match: re.Match[str]) -> str:
        return values[match[1]] if wanted.search(match[1]) else match[0]

    return re.sub(r"\$\{(\w+)\}", put, template)


@contextmanager
def compose_front(folder: Path, upstream_port: int, names: Names) -> Iterator[Front]:
    """Starts nginx as in the compose file; only its address and upstream differ."""
    given = {
        name: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)
        for name, value in compose_service("proxy")["environment"].items()
    }
    port = free_port()
    given |= {
        "NAKA_LISTEN": f"{_HOST}:{port}",
        "NAKA_UPSTREAM": f"{API_NAME}:{upstream_port}",
        "NAKA_RESOLVER": f"{_HOST}:{names.port}",
    }
    with _running(folder, render(TEMPLATE.read_text(), given), port):
        yield Front("compose", port, folder / "stdout")


@contextmanager
def standalone_front(folder: Path, upstream_port: int) -> Iterator[Front]:
    """Starts nginx with standalone.conf and a self-signed certificate."""
    folder.mkdir(parents=True)
    port, plain = free_port(), free_port()
    _certificate(folder)
    text = STANDALONE.read_text()
    for old, new in (
        ("server 127.0.0.1:8000 ", f"server {_HOST}:{upstream_port} "),
        ("listen 80;", f"listen {_HOST}:{plain};"),
        ("listen [::]:80;", ""),
        ("listen 443 ssl http2;", f"listen {_HOST}:{port} ssl http2;"),
        ("listen [::]:443 ssl http2;", ""),
        ("/etc/letsencrypt/live/chat.example.com/fullchain.pem", f"{folder}/certificate.pem"),
        ("/etc/letsencrypt/live/chat.example.com/privkey.pem", f"{folder}/key.pem"),
        ("/var/log/nginx/naka.log", f"{folder}/access.log"),
    ):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    with _running(folder, text, port):
        yield Front("standalone", port, folder / "access.log", folder / "certificate.pem")


@contextmanager
def _running(folder: Path, conf: str, port: int) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "naka.conf").write_text(conf)
    frame = folder / "nginx.conf"
    frame.write_text(_FRAME.format(folder=folder, conf=folder / "naka.conf"))
    with (folder / "stdout").open("wb") as out:
        command = ["nginx", "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(frame)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        _await_port(process, port, folder)
        yield
    finally:
        process.terminate()
        process.wait(10)


def _await_port(process: "subprocess.Popen[bytes]", port: int, folder: Path) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with socket.create_connection((_HOST, port), timeout=1):
                return
        except OSError:
            time.sleep(0.02)
    raise AssertionError(f"nginx did not start: {(folder / 'stdout').read_text()[-2000:]}")


def _certificate(folder: Path) -> None:
    missing("openssl")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=localhost", "-addext", f"subjectAltName=IP:{_HOST}"]
    command += ["-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
