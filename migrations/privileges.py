"""Applies the privileges and policies that `migrations.access` declares, or lists the differences.

Only differences are changed, so a migration without new privileges takes no lock. A new policy locks its table: each
table is changed in its own transaction, with a short lock time-out and retries.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import asyncpg

from core.postgres.roles import ALL, APPLICATION, READER, TENANT
from migrations.access import (
    APPLICATION_POLICY,
    FUNCTIONS,
    SCHEMAS,
    SEQUENCES,
    TABLES,
    TENANT_POLICY,
    Access,
    grants,
    is_declared,
    tenant_condition,
)
from migrations.locks import exclusively, lock_briefly

PUBLIC = "PUBLIC"
_LOCK_TIMEOUT_MS = 1000
_TRIES = 30
_OURS = "n.nspname IN ('public', 'pgqueuer')"
_NOT_OF_AN_EXTENSION = "NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = {oid} AND d.deptype = 'e')"

_RELATIONS = f"""
SELECT c.oid, n.nspname || '.' || c.relname AS name, c.relkind::text AS kind, c.relrowsecurity AS is_guarded,
       ARRAY(SELECT attname::text FROM pg_attribute a
              WHERE a.attrelid = c.oid AND attnum > 0 AND NOT attisdropped) AS columns
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE {_OURS} AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND {_NOT_OF_AN_EXTENSION.format(oid="c.oid")}
 ORDER BY name
"""  # noqa: S608 - constants of this module
_RELATION_GRANTS = """
SELECT c.oid, NULL AS column, a.grantee::regrole::text AS role, a.privilege_type AS privilege
  FROM pg_class c, aclexplode(c.relacl) a WHERE c.oid = ANY ($1::oid[])
UNION ALL
SELECT t.attrelid, t.attname::text, a.grantee::regrole::text, a.privilege_type
  FROM pg_attribute t, aclexplode(t.attacl) a WHERE t.attrelid = ANY ($1::oid[])
"""
_POLICIES = """
SELECT p.polrelid AS oid, p.polname::text AS name, ARRAY(SELECT r::regrole::text FROM unnest(p.polroles) r) AS roles,
       p.polcmd = '*' AND p.polpermissive AS is_plain, pg_get_expr(p.polqual, p.polrelid) AS seen,
       pg_get_expr(p.polwithcheck, p.polrelid) AS written
  FROM pg_policy p WHERE p.polrelid = ANY ($1::oid[])
"""
_FUNCTIONS = f"""
SELECT p.oid, n.nspname || '.' || p.proname || '(' || replace(oidvectortypes(p.proargtypes), ', ', ',') || ')' AS name,
       coalesce(p.proacl, acldefault('f', p.proowner)) AS acl
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
 WHERE {_OURS} AND (p.prosecdef OR p.proname LIKE 'naka\\_%') AND {_NOT_OF_AN_EXTENSION.format(oid="p.oid")}
 ORDER BY name
"""  # noqa: S608
_SCHEMAS = f"""
SELECT n.oid, n.nspname AS name, coalesce(n.nspacl, acldefault('n', n.nspowner)) AS acl
  FROM pg_namespace n WHERE {_OURS}
"""  # noqa: S608
_DATABASE = """
SELECT oid, quote_ident(datname) AS name, coalesce(datacl, acldefault('d', datdba)) AS acl
  FROM pg_database WHERE datname = current_database()
"""
_HELD = """
SELECT a.grantee::regrole::text AS role, a.privilege_type AS privilege FROM aclexplode($1::aclitem[]) a
"""

Grants = dict[str, frozenset[tuple[str, str | None]]]


@dataclass(frozen=True, slots=True)
class Difference:
    """An object whose privileges or policies are not as declared, and the statements that correct it.

    An undeclared object has statements only if our roles have grants on it. `is_ours`: the migrating role owns it.
    """

    name: str
    says: str
    statements: tuple[str, ...] = ()
    is_ours: bool = True


async def differences(connection: Any) -> list[Difference]:
    """All differences between the database and the declaration. Any role may read them."""
    found = [
        *await _of_tables(connection),
        *await _of_objects(connection, "FUNCTION", _FUNCTIONS, FUNCTIONS),
        *await _of_objects(connection, "SCHEMA", _SCHEMAS, SCHEMAS),
    ]
    (database,) = await connection.fetch(_DATABASE)
    wanted = _wanted(Access("CONNECT"), frozenset()) | {READER: _whole("CONNECT")}
    found.extend(await _of_object(connection, "DATABASE", database, wanted))
    return found


async def apply_access(connection: Any) -> None:
    """Applies the declaration. The connection's role owns the schema. Idempotent."""
    async with exclusively(connection):  # the second of two concurrent migrations finds nothing to change
        for difference in await differences(connection):
            if difference.statements:
                await _correct(connection, difference)


async def _correct(connection: Any, difference: Difference) -> None:
    try:
        await lock_briefly(connection, difference.statements, timeout_ms=_LOCK_TIMEOUT_MS, tries=_TRIES)
    except asyncpg.InsufficientPrivilegeError:
        if difference.is_ours:
            raise  # else another role owns it: `naka doctor` still reports it


async def _of_tables(connection: Any) -> list[Difference]:
    relations = await connection.fetch(_RELATIONS)
    oids = [row["oid"] for row in relations]
    held: dict[int, dict[str, set[tuple[str, str | None]]]] = {oid: {} for oid in oids}
    for row in await connection.fetch(_RELATION_GRANTS, oids):
        held[row["oid"]].setdefault(_role(row["role"]), set()).add((row["privilege"], row["column"]))
    policies: dict[int, list[Any]] = {oid: [] for oid in oids}
    for row in await connection.fetch(_POLICIES, oids):
        policies[row["oid"]].append(row)
    found: list[Difference] = []
    for row in relations:
        name, columns = row["name"], frozenset(row["columns"])
        access = (SEQUENCES if row["kind"] == "S" else TABLES).get(name)
        is_ours = access is not None or is_declared(name)
        if not is_ours:  # possibly the operator's own object
            found.append(Difference(name, "is not declared in migrations/access.py"))
            held[row["oid"]].pop(PUBLIC, None)
        kind = "SEQUENCE" if row["kind"] == "S" else "TABLE"
        wanted = _wanted(access, columns, readable=kind == "TABLE")
        statements = [*_grant_statements(kind, name, held[row["oid"]], wanted)]
        if access is not None and row["kind"] in {"r", "p"}:
            statements += _policy_statements(name, access, columns, policies[row["oid"]], is_guarded=row["is_guarded"])
        if statements:
            found.append(Difference(f"{kind} {name}", "; ".join(statements), tuple(statements), is_ours))
    return found


async def _of_objects(connection: Any, kind: str, query: str, declared: Mapping[str, Access]) -> list[Difference]:
    found: list[Difference] = []
    for row in await connection.fetch(query):
        access = declared.get(row["name"])
        if access is None:
            found.append(Difference(row["name"], "is not declared in migrations/access.py"))
        wanted = _wanted(access, frozenset()) | {READER: _whole("USAGE") if kind == "SCHEMA" else frozenset()}
        found.extend(await _of_object(connection, kind, row, wanted))
    return found


async def _of_object(connection: Any, kind: str, row: Any, wanted: Grants) -> list[Difference]:
    held: dict[str, set[tuple[str, str | None]]] = {}
    for each in await connection.fetch(_HELD, row["acl"]):
        held.setdefault(_role(each["role"]), set()).add((each["privilege"], None))
    if kind in {"SCHEMA", "DATABASE"}:  # Postgres's default grants to PUBLIC, which are harmless
        wanted = {**wanted, PUBLIC: frozenset(held.get(PUBLIC, set()) & _whole("USAGE", "CONNECT"))}
    statements = tuple(_grant_statements(kind, row["name"], held, wanted))
    if not statements:
        return []
    return [Difference(f"{kind} {row['name']}", "; ".join(statements), statements, is_ours=kind == "FUNCTION")]


def _wanted(access: Access | None, columns: frozenset[str], *, readable: bool = False) -> Grants:
    if access is None:
        return {}
    wanted = grants(access, columns)
    return wanted if readable else wanted | {READER: frozenset()}


def _whole(*privileges: str) -> frozenset[tuple[str, str | None]]:
    return frozenset((privilege, None) for privilege in privileges)


def _grant_statements(
    kind: str, name: str, held: Mapping[str, Iterable[tuple[str, str | None]]], wanted: Grants
) -> Iterator[str]:
    """The statements that revoke and grant, one per role and verb."""
    for role in (*ALL, PUBLIC):
        has, should = set(held.get(role, ())), set(wanted.get(role, ()))
        if has - should:
            yield f"REVOKE {_listed(has - should)} ON {kind} {name} FROM {role}"
        if should - has:
            yield f"GRANT {_listed(should - has)} ON {kind} {name} TO {role}"


def _listed(privileges: Iterable[tuple[str, str | None]]) -> str:
    return ", ".join(
        privilege if column is None else f'{privilege} ("{column}")'
        for privilege, column in sorted(privileges, key=lambda each: (each[0], each[1] or ""))
    )


def _policy_statements(
    name: str, access: Access, columns: frozenset[str], actual: Iterable[Any], *, is_guarded: bool
) -> list[str]:
    """The application's policy is the constant true, which the planner removes: it costs nothing on the hot path."""
    owner = "id" if name == "public.tenants" else "tenant_id"
    if owner not in columns:
        return []
    own = tenant_condition(owner)
    check = f"({own} AND {access.tenant_check})" if access.tenant_check else own
    wanted = {
        APPLICATION_POLICY: ({APPLICATION, READER}, "true", "true"),
        TENANT_POLICY: ({TENANT}, own, check),
    }
    statements = [] if is_guarded else [f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY"]
    good = set()
    for row in actual:
        actual_policy = (set(row["roles"]), _bare(row["seen"]), _bare(row["written"]))
        if row["is_plain"] and row["name"] in wanted:
            roles, seen, written = wanted[row["name"]]
            if actual_policy == (roles, _bare(seen), _bare(written)):
                good.add(row["name"])
                continue
        statements.append(f'DROP POLICY "{row["name"]}" ON {name}')
    for policy, (roles, seen, written) in wanted.items():
        if policy not in good:
            statements.append(
                f"CREATE POLICY {policy} ON {name} TO {', '.join(sorted(roles))} USING ({seen}) WITH CHECK ({written})"
            )
    return statements


def _bare(condition: str | None) -> str:
    """The condition without the spaces and parentheses in which Postgres's output may differ."""
    return re.sub(r"[()\s]", "", condition or "")


def _role(name: str) -> str:
    return PUBLIC if name == "-" else name
