"""The second line in Postgres: the application's role, and the privileges and policies of every table."""

from api.doctor.findings import Checkup
from core.postgres.roles import TENANT
from migrations.privileges import differences

_SEPARATE = "set DATABASE_MIGRATION_URL and another role in DATABASE_URL: see docs/operating.md"
_OWNS = """
SELECT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS is_superuser,
       EXISTS (SELECT FROM pg_class WHERE relname = 'usage_requests' AND pg_has_role(relowner, 'USAGE')) AS is_owner,
       pg_has_role($1::name, 'MEMBER') AS may_confine
"""


async def database_role(patient: Checkup) -> None:
    """Whether the application connects as a role that cannot change its own schema, and can serve a tenant."""
    held = await patient.postgres.fetchrow(_OWNS, TENANT)
    if not held["may_confine"]:
        patient.fault("database role", f"it is no member of {TENANT}: tenants get no answer", "run `naka migrate`")
        return
    patient.judge(
        "database role",
        good=not held["is_superuser"] and not held["is_owner"],
        says="it cannot change the schema, the audit log or the entries",
        otherwise="the application can change its own schema, and row-level security does not hold for it",
        mend=_SEPARATE,
        is_fault=False,
    )


async def privileges(patient: Checkup) -> None:
    """Whether each role may do what is declared, and nothing else."""
    wrong = [each.name for each in await differences(patient.postgres) if each.statements]
    patient.judge(
        "privileges",
        good=not wrong,
        says="every table is as declared",
        otherwise=f"not as declared: {', '.join(wrong[:5])}{', ...' if len(wrong) > 5 else ''}",  # noqa: PLR2004
        mend="run `naka migrate`, as the owner of the schema and the database",
        is_fault=False,
    )
