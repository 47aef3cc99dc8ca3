"""The people whom the simulated identity provider of `naka up` lists, and the demo's members among them.

One of them is no member yet: to be invited.
"""

from sqlalchemy import exists, select

from core.identity.members import NewMember, add_member
from core.identity.roles import Role
from core.postgres.database import Database
from core.tenancy.accounts import find_tenant
from core.tenancy.audit import Actor
from core.tenancy.models import Member

_ACTOR = Actor("cli:naka up")
_MEMBERS = (
    ("demo", "grace@demo.example", Role.OWNER),
    ("demo", "alan@demo.example", Role.VIEWER),
    ("operator", "root@operator.example", Role.OPERATOR),
)
PEOPLE = {
    "grace@demo.example": "Grace, owner of the demo",
    "alan@demo.example": "Alan, viewer of the demo",
    "root@operator.example": "Root, the operator",
    "lin@demo.example": "Lin, not invited yet",
}


async def demo_members(database: Database) -> None:
    """Adds the members, each once: one that was removed stays so."""
    async with database.session() as session:
        for slug, email, role in _MEMBERS:
            tenant = await find_tenant(session, slug)
            known = exists().where(Member.tenant_id == tenant.id, Member.email == email)
            if not await session.scalar(select(known)):
                await add_member(session, _ACTOR, tenant.id, NewMember(email, role), live=False)
