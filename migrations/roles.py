"""Creates the roles and the application's login, if the migrating role has the privilege (CREATEROLE).

Roles belong to the whole cluster, so another database or a concurrent migration may create the same ones. Without the
privilege an administrator runs `deploy/postgres/roles.sql` once, as RolesMissing says.
"""

import asyncio
import base64
import hashlib
import hmac
import secrets
import unicodedata
from typing import Any

import asyncpg

from core.errors import NakaError
from core.postgres.roles import ALL, APPLICATION, TENANT
from core.postgres.url import PostgresUrl

_TRIES = 20
_PAUSE_S = 0.1
_SCRAM_ROUNDS = 4096  # Postgres's own default


class RolesMissing(NakaError):
    """The roles are missing, and the migrating role may not create them."""


async def ensure_roles(connection: Any, application_url: PostgresUrl) -> None:
    """Creates missing roles, and makes the login of `application_url` a member. Safe in many databases at once.

    An existing login keeps its password. Raises RolesMissing.
    """
    login = application_url.user or await connection.fetchval("SELECT session_user::text")
    try:
        for role in ALL:
            await _ensure(connection, role, "NOLOGIN")
        await _ensure_member(connection, TENANT, APPLICATION)
        password = "" if application_url.password is None else f" PASSWORD '{scram_verifier(application_url.password)}'"
        await _ensure(connection, login, f"LOGIN{password}")
        await _ensure_member(connection, APPLICATION, login)
    except asyncpg.InsufficientPrivilegeError as error:
        raise RolesMissing(
            "this role may not create roles: let an administrator run deploy/postgres/roles.sql, then migrate again"
        ) from error


async def _ensure(connection: Any, role: str, options: str) -> None:
    if await connection.fetchval("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", role):
        return
    await _once(connection, f"CREATE ROLE {_quoted(role)} {options}")


async def _ensure_member(connection: Any, group: str, member: str) -> None:
    if await connection.fetchval("SELECT pg_has_role($1::name, $2::name, 'USAGE')", member, group):
        return
    await _once(connection, f"GRANT {_quoted(group)} TO {_quoted(member)}")


async def _once(connection: Any, statement: str) -> None:
    """Runs the statement, unless a concurrent migration of the cluster has already done the same."""
    for _ in range(_TRIES):
        try:
            async with connection.transaction():
                await connection.execute(statement)
        except (asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError):
            return
        except asyncpg.InternalServerError:  # "tuple concurrently updated"
            await asyncio.sleep(_PAUSE_S)
        else:
            return
    raise RolesMissing("another migration is changing the roles of this Postgres: migrate again")


def scram_verifier(password: str) -> str:
    """The verifier that Postgres stores for a password (RFC 5803): no statement or log contains the password."""
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", unicodedata.normalize("NFKC", password).encode(), salt, _SCRAM_ROUNDS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    salt64, stored64, server64 = (base64.b64encode(part).decode() for part in (salt, stored, server))
    return f"SCRAM-SHA-256${_SCRAM_ROUNDS}:{salt64}${stored64}:{server64}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
