"""What is sold and what it is made of: plans in their versions, and the provider's price list.

To read: both are published from the command line or by the API, and never edited.
"""

from fastapi import Request
from fastapi.responses import Response

from api.auth.access import RuntimeDep
from api.pages.operator.frame import Cell, Listing, Row, money, show_list
from api.pages.route import page_router
from api.pages.site import Here, number, words
from api.pages.visitor import Operator
from api.routes.admin.plans import PlanItem
from billing.catalogue.plans import list_plans
from billing.gst.rupees import rupees
from core.clock import to_datetime
from metering.pricing.price_list import read_prices

router = page_router("/operator")


@router.get("/plans")
async def plans(request: Request, runtime: RuntimeDep, visitor: Operator) -> Response:
    """Every version of every plan."""
    here = Here(runtime.calendar.zone)
    async with runtime.database.session() as session:
        items = [PlanItem.of(plan) for plan in await list_plans(session)]
    listing = Listing(
        ["Plan", "Version", "A month, before GST", "Includes", "Past it", "Published"],
        [
            Row(
                [
                    Cell(item.name, note=item.code),
                    Cell(str(item.version), is_number=True),
                    money(item.base_paise),
                    Cell(
                        "; ".join(f"{number(one.allowance)} {words(one.meter)}" for one in item.meters)
                        or "its limits only"
                    ),
                    Cell(_past(item), note="; ".join(item.warnings)),
                    Cell(here.day(item.created_at)),
                ]
            )
            for item in sorted(items, key=lambda item: (item.code, -item.version))
        ],
        "No plan yet: naka plan publish, or POST /v1/admin/plans.",
    )
    lead = "A version is never edited: publish the code again, and who subscribes from then on gets the new one."
    return show_list(request, visitor, "Plans", listing, lead=lead)


def _included(item: PlanItem) -> str:
    return "; ".join(f"{number(one.allowance)} {words(one.meter)}" for one in item.meters) or "its limits only"


def _past(item: PlanItem) -> str:
    if item.past_allowance == "block":
        return "requests are refused"
    rates = ", ".join(f"{rupees(one.rate_paise)} per million {words(one.meter)}" for one in item.meters)
    return f"{rates}; at most {rupees(item.ceiling_paise or 0)}"


@router.get("/prices")
async def prices(request: Request, runtime: RuntimeDep, visitor: Operator) -> Response:
    """What the provider charges, in dollars per million tokens."""
    here = Here(runtime.calendar.zone)
    async with runtime.database.session() as session:
        known = await read_prices(session)
    listing = Listing(
        ["Model", "From", "Prompts over", "Input", "Output", "Cache read", "Cache write, 5 min", "Cache write, 1 h"],
        [
            Row(
                [
                    Cell(price.model),
                    Cell(here.day(to_datetime(price.effective_from_ms)) if price.effective_from_ms > 0 else "always"),
                    Cell(number(band.over_prompt_tokens), is_number=True),
                    *(
                        _rate(nano)
                        for nano in (
                            band.input_rate,
                            band.output_rate,
                            band.cache_read_rate,
                            band.cache_write_5m_rate,
                            band.cache_write_1h_rate,
                        )
                    ),
                ]
            )
            for price in known
            for band in price.bands
        ],
        "No price yet: naka price add, or POST /v1/admin/prices. Until then no model may be asked for.",
    )
    return show_list(
        request, visitor, "Prices", listing, lead="Dollars per million tokens, as Anthropic's list has them."
    )


def _rate(nano_usd: int) -> Cell:
    """A nano-dollar per token is a thousandth of a dollar per million."""
    return Cell(f"${nano_usd // 1000}.{nano_usd % 1000:03d}".removesuffix("0"), is_number=True)
