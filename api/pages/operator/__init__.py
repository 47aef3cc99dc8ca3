"""The operator's pages: is everything well, whose is what, and the word that only a person can say."""

from fastapi import APIRouter

from api.pages.operator.audit import router as audit
from api.pages.operator.books import router as books
from api.pages.operator.catalogue import router as catalogue
from api.pages.operator.findings import router as findings
from api.pages.operator.money import router as money
from api.pages.operator.overview import router as overview
from api.pages.operator.tenants import router as tenants
from api.pages.operator.webhooks import router as webhooks

router = APIRouter(include_in_schema=False)
for _each in (overview, tenants, money, findings, webhooks, books, audit, catalogue):
    router.include_router(_each)
