"""`naka mandate`: what tenants allow to be debited. The worker sends the operator's changes to Razorpay."""

from api.cli.command import Call, Group
from api.cli.options import Limit, OfTenant, Reason, Tenant, tenant_name, tenant_or_all
from api.schemas.billing.decisions import Decision
from api.services.billing import mandates

app = Group()


@app.answering("list", "tenant_id", "state", "method", "max_paise", "authorised_at", "ended_at", "end_reason", "error")
def list_all(tenant: OfTenant = None, most: Limit = 50) -> Call:
    """List mandates, newest first; ended ones too."""
    return lambda context: mandates.list_mandates(context, tenant=tenant_or_all(tenant), size=most)


@app.answering("cancel", billing=True)
def cancel(tenant: Tenant, reason: Reason) -> Call:
    """Cancel a tenant's mandate: its bills come as payment links again."""
    why = Decision(reason=reason).reason
    return lambda context: mandates.end_for_tenant(context, tenant_name(tenant), why)
