"""Foreign keys among a tenant's rows of billing."""

from sqlalchemy import ForeignKeyConstraint


def tenant_key(table: str, column: str, target: str) -> ForeignKeyConstraint:
    """The key from `table`'s `column` to `target`, as `bills.id`, of the same tenant.

    Postgres checks it at the commit, so that rows of one transaction may be written in any order.
    """
    other = target.split(".", maxsplit=1)[0]
    return ForeignKeyConstraint(
        ["tenant_id", column],
        [f"{other}.tenant_id", target],
        name=f"fk_{table}_{column}",
        deferrable=True,
        initially="DEFERRED",
    )
