"""`naka tag-key`: the tag keys of a tenant whose usage is added up by value."""

from typing import Annotated

import typer

from api.cli.command import Call, Group, run_service
from api.cli.options import Tenant, tenant_name
from api.schemas.usage.tags import TagKeyBody
from api.services.usage import tags
from metering.tags.declared import USUAL_VALUES

app = Group()
Key = Annotated[str, typer.Argument(help="The tag key, as `feature`.")]


@app.answering("declare")
def declare(
    tenant: Tenant,
    key: Key,
    max_values: Annotated[int, typer.Option(help="The most values in a day; later ones are `other`.")] = USUAL_VALUES,
) -> Call:
    """Add up the usage of a tag key by its values, or change the bound of its values."""
    body = TagKeyBody(max_values=max_values)
    return lambda context: tags.declare_tag_key(context, tenant_name(tenant), key, body)


@app.answering("list", "key", "max_values", "values_today", "overflowed")
def list_all(tenant: Tenant) -> Call:
    """List the tag keys of a tenant whose usage is added up."""
    return lambda context: tags.list_tag_keys(context, tenant_name(tenant))


@app.command("remove")
def remove(tenant: Tenant, key: Key) -> None:
    """Stop adding up the usage of a tag key. Its past usage stays in the reports."""
    run_service(lambda context: tags.remove_tag_key(context, tenant_name(tenant), key))
