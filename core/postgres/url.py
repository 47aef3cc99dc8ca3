"""DATABASE_URL, parsed: libpq's URI and parameters as arguments for asyncpg.

A parameter that asyncpg does not support is refused by name at the start, neither ignored nor sent to the server as a
setting. Errors name parameters, not values: a misread URL may have its password in place of the host. Source:
PostgreSQL 18 manual, 32.1.1.3 "Connection URIs" and 32.1.2 "Parameter Key Words".
"""

import os
import re
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal
from urllib.parse import quote, unquote, urlencode

Pooler = Literal["none", "session", "transaction"]
"""The mode of the pooler (PgBouncer) between Naka and Postgres, if any."""

_URI = re.compile(
    r"postgres(?:ql)?(?:\+\w+)?://(?P<authority>[^/?]*)(?:/(?P<database>[^?]*))?(?:\?(?P<query>.*))?", re.DOTALL
)
_HOST = re.compile(r"(?P<host>\[[^\]]+\]|[^:\[\]]*)(?::(?P<port>\d*))?")
_MAX_PORT = 65_535
_DEFAULT_PORT = 5432
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


_FOR_ASYNCPG = frozenset(
    {
        *("passfile", "service", "target_session_attrs", "krbsrvname", "gsslib"),
        *("sslmode", "sslcert", "sslkey", "sslpassword", "sslrootcert", "sslcrl", "sslnegotiation"),
        *("ssl_min_protocol_version", "ssl_max_protocol_version"),
    }
)
"""Parameters that asyncpg supports by libpq's names."""
_FOR_THE_SERVER = frozenset({"options", "application_name"})
_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
_NO_EFFECT: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "channel_binding": frozenset({"disable", "prefer"}),
        "client_encoding": frozenset({"utf8", "utf-8", "auto"}),
        "gssdelegation": frozenset({"0"}),
        "gssencmode": frozenset({"disable", "prefer"}),
        "sslcertmode": frozenset({"allow"}),
        "sslcompression": frozenset({"0"}),
        "sslsni": frozenset({"1"}),
    }
)
"""Parameters with the values that match asyncpg's behaviour; other values are refused."""
_IGNORED = frozenset({"fallback_application_name"})
"""Without effect, because Naka sets an application name."""
_WRITABLE = frozenset({"any", "read-write", "primary"})
_KEEPALIVE: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "keepalives": (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        **{
            parameter: (socket.IPPROTO_TCP, getattr(socket, option))
            for parameter, option in (
                ("keepalives_idle", "TCP_KEEPIDLE"),
                ("keepalives_interval", "TCP_KEEPINTVL"),
                ("keepalives_count", "TCP_KEEPCNT"),
                ("tcp_user_timeout", "TCP_USER_TIMEOUT"),
            )
            if hasattr(socket, option)
        },
    }
)
"""Socket options, where the operating system has them."""
_OPTION = re.compile(r"(?:-c\s*|--)(?P<name>[\w.-]+)=(?P<value>(?:\\.|[^\s\\])*)(?:\s+|$)")


class BadPostgresUrl(ValueError):
    """The URL cannot be used. The message gives the reason and no value."""


@dataclass(frozen=True, slots=True)
class PostgresUrl:
    """A parsed URL. `repr` and `str` show no secret."""

    hosts: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    database: str | None = None
    parameters: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Parameters for asyncpg, by libpq's names."""
    server_settings: Mapping[str, str] = field(default_factory=dict)
    connect_timeout_s: float | None = None
    shuffles: bool = False
    socket_options: tuple[tuple[int, int, int], ...] = ()
    pooler: Pooler = "none"

    def arguments(self) -> dict[str, Any]:
        """Returns the keyword arguments of `asyncpg.connect`. Raises OSError for a missing certificate file."""
        parameters = dict(self.parameters)
        arguments: dict[str, Any] = {"user": self.user, "password": self.password, "database": self.database}
        if self.hosts:
            arguments |= {"host": list(self.hosts), "port": list(self.ports)}
        elif self.ports:
            arguments["port"] = self.ports[0]
        if parameters.get("sslrootcert") == "system":
            arguments["ssl"] = _system_roots(parameters)
        # These have no argument of their own. `quote`, because asyncpg reads a plus sign as a space.
        arguments["dsn"] = f"postgresql://?{urlencode(parameters, quote_via=quote)}" if parameters else None
        return {name: value for name, value in arguments.items() if value is not None}


def parse(url: str, pooler: Pooler = "none") -> PostgresUrl:
    """Parses a URL. Raises BadPostgresUrl."""
    found = _URI.fullmatch(url.strip())
    if found is None:
        raise BadPostgresUrl("it is not a URL of the form postgresql://user:password@host:port/database")
    credentials, _, hostlist = found["authority"].rpartition("@")
    user, _, password = credentials.partition(":")
    query = _query(found["query"] or "")
    named = query.pop("host", "")
    hosts, ports = _hosts(named or hostlist, query.pop("port", ""), is_plain=bool(named))
    return PostgresUrl(
        hosts=hosts,
        ports=ports,
        user=query.pop("user", "") or unquote(user) or None,
        password=query.pop("password", "") or unquote(password) or None,
        database=query.pop("dbname", "") or unquote(found["database"] or "") or None,
        connect_timeout_s=_connect_timeout_s(query.pop("connect_timeout", "")),
        shuffles=_shuffles(query.pop("load_balance_hosts", "disable")),
        socket_options=_socket_options(query),
        server_settings=_server_settings(query, pooler),
        parameters=_parameters(query),
        pooler=pooler,
    )


def postgres_url(url: "str | PostgresUrl") -> PostgresUrl:
    """Returns a parsed URL as it is, and parses a text as the URL of a server without pooler."""
    return parse(url) if isinstance(url, str) else url


def server_options(options: str) -> dict[str, str]:
    """The settings in libpq's `options`, as `-c name=value` or `--name=value`. Raises BadPostgresUrl for any other."""
    settings, at = {}, 0
    text = options.strip()
    while at < len(text):
        found = _OPTION.match(text, at)
        if found is None:
            raise BadPostgresUrl("options: behind a pooler only -c name=value can be set")
        settings[found["name"].replace("-", "_")] = re.sub(r"\\(.)", r"\1", found["value"])
        at = found.end()
    return settings


def _query(text: str) -> dict[str, str]:
    """Parses by libpq's rules: percent-encoding only (a plus sign is literal), and the last value of a name counts."""
    query: dict[str, str] = {}
    for pair in filter(None, text.split("&")):
        name, has_value, value = pair.partition("=")
        if not has_value:
            raise BadPostgresUrl(f"{unquote(name)}: it has no value")
        query[unquote(name)] = unquote(value)
    if query.pop("ssl", "") == "true":
        query.setdefault("sslmode", "require")  # libpq accepts JDBC's `ssl=true`
    return query


def _hosts(hostlist: str, portlist: str, *, is_plain: bool) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Returns hosts and ports. `is_plain`: `hostlist` is the parameter `host`, decoded and without ports."""
    found = [(each, "") for each in hostlist.split(",")] if is_plain else [_host(each) for each in hostlist.split(",")]
    listed = portlist.split(",") if portlist else []
    if len(listed) > 1 and len(listed) != len(found):
        raise BadPostgresUrl("port: there must be one, or as many as there are hosts")
    if len(found) > 1 and not all(host for host, _ in found):
        raise BadPostgresUrl("host: one of several is empty")
    given = listed * len(found) if len(listed) == 1 else listed or [""] * len(found)
    ports = [_port(own or apart) for (_, own), apart in zip(found, given, strict=True)]
    if found[0][0]:
        return tuple(host for host, _ in found), tuple(ports)
    return (), tuple(ports) if found[0][1] or portlist else ()


def _host(text: str) -> tuple[str, str]:
    found = _HOST.fullmatch(text)
    if found is None:
        raise BadPostgresUrl("ambiguous host and port; in a user or password write / : @ as %2F %3A %40")
    return unquote(found["host"].strip("[]")), found["port"] or ""


def _port(text: str) -> int:
    if not text:
        return _DEFAULT_PORT
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= _MAX_PORT:
        raise BadPostgresUrl("port: it is not a number from 1 to 65535")
    return int(text)


def _connect_timeout_s(text: str) -> float | None:
    if not text:
        return None
    seconds = _whole_number("connect_timeout", text)
    return float(max(seconds, 2)) if seconds else None  # libpq waits at least 2 s; 0 means no limit


def _shuffles(text: str) -> bool:
    if text not in {"disable", "random"}:
        raise BadPostgresUrl("load_balance_hosts: it is not disable or random")
    return text == "random"


def _socket_options(query: dict[str, str]) -> tuple[tuple[int, int, int], ...]:
    """Removes and returns the keep-alive parameters. 0 leaves an interval to the system, as in libpq."""
    options = []
    for name, (level, option) in _KEEPALIVE.items():
        if name in query:
            value = _whole_number(name, query.pop(name))
            if value or name == "keepalives":
                options.append((level, option, value))
    return tuple(options)


def _server_settings(query: dict[str, str], pooler: Pooler) -> dict[str, str]:
    settings = {name: query.pop(name) for name in _FOR_THE_SERVER if name in query}
    if "options" in settings and pooler == "transaction":
        raise BadPostgresUrl("options: not with DATABASE_POOLER=transaction; set them with ALTER ROLE ... SET instead")
    if "options" in settings and pooler == "session":
        settings |= server_options(settings.pop("options"))
    return settings


def _parameters(query: dict[str, str]) -> dict[str, str]:
    """Returns the remaining parameters, for asyncpg. Raises BadPostgresUrl for an unsupported one."""
    parameters = {}
    for name, value in query.items():
        if name in _FOR_ASYNCPG:
            parameters[name] = value
        elif name in _NO_EFFECT:
            if value.lower() not in _NO_EFFECT[name]:
                raise BadPostgresUrl(f"{name}: only {' or '.join(sorted(_NO_EFFECT[name]))} is supported")
        elif name not in _IGNORED:
            raise BadPostgresUrl(f"{name if name.isidentifier() else 'one of its parameters'}: not supported")
    _check_ssl(parameters)
    if parameters.get("target_session_attrs", "any") not in _WRITABLE:
        raise BadPostgresUrl(f"target_session_attrs: Naka writes, so one of {', '.join(sorted(_WRITABLE))}")
    return parameters


def _check_ssl(parameters: dict[str, str]) -> None:
    """Raises BadPostgresUrl for an unknown mode or an unreadable file."""
    system = parameters.get("sslrootcert") == "system"
    mode = parameters.setdefault("sslmode", "verify-full") if system else parameters.get("sslmode", "prefer")
    if mode not in _SSL_MODES:
        raise BadPostgresUrl(f"sslmode: it is not one of {', '.join(_SSL_MODES)}")
    if system and mode != "verify-full":
        raise BadPostgresUrl("sslrootcert: system needs sslmode=verify-full")
    for name in _FILES:
        if name in parameters and not (name == "sslrootcert" and system) and not os.access(parameters[name], os.R_OK):
            raise BadPostgresUrl(f"{name}: there is no such file, or it cannot be read")


def _system_roots(parameters: dict[str, str]) -> ssl.SSLContext:
    """Returns a TLS context with the operating system's certificates, which asyncpg has no parameter for."""
    context = ssl.create_default_context()
    for name in ("sslrootcert", "sslmode"):
        parameters.pop(name, None)
    certificate, key = parameters.pop("sslcert", None), parameters.pop("sslkey", None)
    if certificate:
        context.load_cert_chain(certificate, key, parameters.pop("sslpassword", None))
    return context


def _whole_number(name: str, text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise BadPostgresUrl(f"{name}: it is not a whole number")
    return int(text)
