"""Plans in their versions, offered and withdrawn here, and the provider's price list.

The command line and the API publish both.
"""

from fastapi import Request
from fastapi.responses import Response

from api.pages.operator.frame import Act, Cell, Listing, Row, Said, money, show_list
from api.pages.route import page_router
from api.pages.site import Here, see_other, sentence, words
from api.pages.visitor import Operator
from api.routes.parameters import PlanCode, PlanVersion
from api.schemas.billing.plans import PlanItem
from api.schemas.usage.prices import BandItem, PriceItem
from api.services.billing.plans import list_plans, offer_plan, withdraw_plan
from api.services.usage.prices import list_prices
from billing.gst.rupees import rupees
from billing.models.states import PlanState
from core.clock import to_ms
from core.figures import grouped

router = page_router("/operator")


@router.get("/plans")
async def plans(request: Request, visitor: Operator, said: Said = "") -> Response:
    """Every version of every plan."""
    here = Here(visitor.context.zone)
    items = sorted((await list_plans(visitor.context)).items, key=lambda item: (item.code, -item.version))
    listing = Listing(
        [
            "Plan",
            "Version",
            "State",
            "Per month, before GST",
            "Includes",
            "Overage",
            "Models and features",
            "Published",
        ],
        [
            Row(
                [
                    Cell(item.name, note=item.code),
                    Cell(str(item.version), is_number=True),
                    Cell(item.state, is_state=True),
                    money(item.base_paise),
                    Cell(_included(item)),
                    Cell(_overage(item)),
                    Cell(", ".join(item.models or ["all models"]), note=", ".join(map(words, item.features))),
                    Cell(here.day(item.created_at)),
                ],
                _acts(item),
                note=" ".join(map(sentence, item.warnings)),
            )
            for item in items
        ],
        "No plans yet: naka plan publish, or POST /v1/admin/plans.",
    )
    lead = (
        "A version is never edited: publish the code again, and later subscribers get the new version. "
        "Tenants keep the version they have, even if it is withdrawn."
    )
    return show_list(request, visitor, "Plans", listing, said, lead)


@router.post("/plans/{code}/{version}/offer")
async def offer(code: PlanCode, version: PlanVersion, visitor: Operator) -> Response:
    """Offers a version instead of the one offered before."""
    await offer_plan(visitor.context, code, version)
    return see_other("/operator/plans?said=offered")


@router.post("/plans/{code}/{version}/withdraw")
async def withdraw(code: PlanCode, version: PlanVersion, visitor: Operator) -> Response:
    """Ends the sale of a version."""
    await withdraw_plan(visitor.context, code, version)
    return see_other("/operator/plans?said=withdrawn")


def _acts(item: PlanItem) -> list[Act]:
    where, name = f"/operator/plans/{item.code}/{item.version}", f"version {item.version} of {item.name}"
    offered = Act("Offer", f"Offer {name}? The version offered until now is withdrawn.", f"{where}/offer")
    withdrawn = Act("Withdraw", f"Withdraw {name}? Tenants that have it keep it.", f"{where}/withdraw", is_grave=True)
    match item.state:
        case PlanState.DRAFT:
            return [offered, withdrawn]
        case PlanState.OFFERED:
            return [withdrawn]
        case _:
            return [offered]


def _included(item: PlanItem) -> str:
    return "; ".join(f"{grouped(one.allowance)} {words(one.meter)}" for one in item.meters) or "its limits only"


def _overage(item: PlanItem) -> str:
    if item.past_allowance == "block":
        return "requests are refused"
    terms = [", ".join(f"{rupees(one.rate_paise)} per million {words(one.meter)}" for one in item.meters)]
    if item.past_allowance == "prepaid":
        terms.append("paid from the wallet")
    if item.ceiling_paise is not None:
        terms.append(f"at most {rupees(item.ceiling_paise)}")
    if item.threshold_paise is not None:
        terms.append(f"billed each {rupees(item.threshold_paise)}")
    return "; ".join(terms)


@router.get("/prices")
async def prices(request: Request, visitor: Operator) -> Response:
    """The provider's prices, in dollars per million tokens."""
    here = Here(visitor.context.zone)
    known = sorted((await list_prices(visitor.context)).items, key=lambda price: price.effective_from)
    listing = Listing(
        [
            "Model",
            "From",
            "Prompts over",
            "Input",
            "Output",
            "Cache read",
            "Cache write, 5 min",
            "Cache write, 1 h",
            "Modifiers",
            "1,000 web searches",
        ],
        [
            Row(
                [
                    Cell(price.model),
                    Cell(here.day(price.effective_from) if to_ms(price.effective_from) > 0 else "always"),
                    Cell(grouped(band.over_prompt_tokens), is_number=True),
                    *_rates(band),
                    Cell(_factors(price)),
                    _rate(price.web_search_rate // 1000),
                ]
            )
            for price in known
            for band in price.bands
        ],
        "No prices yet: naka price add, or POST /v1/admin/prices. Until then every model is refused.",
    )
    lead = "Dollars per million tokens, as in Anthropic's price list. Modifiers multiply them, but not web searches."
    return show_list(request, visitor, "Prices", listing, lead=lead)


def _rates(band: BandItem) -> list[Cell]:
    rates = (
        band.input_rate,
        band.output_rate,
        band.cache_read_rate,
        band.cache_write_5m_rate,
        band.cache_write_1h_rate,
    )
    return [_rate(nano_usd) for nano_usd in rates]


def _rate(nano_usd: int) -> Cell:
    """Dollars per million tokens: a thousandth of one is a nano-dollar per token."""
    return Cell(f"${nano_usd // 1000}.{nano_usd % 1000:03d}".removesuffix("0"), is_number=True)


def _factors(price: PriceItem) -> str:
    """The factors, as `speed:fast 2x`; they are stored per mille."""
    texts = {modifier: f"{factor // 1000}.{factor % 1000:03d}" for modifier, factor in sorted(price.factors.items())}
    return "; ".join(f"{modifier} {text.rstrip('0').rstrip('.')}\u00d7" for modifier, text in texts.items())
