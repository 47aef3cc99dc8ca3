"""Every command of `naka`, and its errors: one line on standard error, and exit code 1, or 2 for wrong settings."""

import sys

from pydantic import ValidationError

from api.cli.command import in_one_line
from api.cli.lazy import Entry, LazyGroup
from core.errors import NakaError
from core.postgres.connection import UnexpectedPooler
from core.resilience.outage import STORE_ERRORS
from core.settings import SettingsError

_RUN, _ACCOUNTS, _BILLING, _REPORTS = "Run", "Tenants, users, keys", "Billing", "Reports and reconciliation"
COMMANDS = {
    "up": Entry("api.cli.processes.up:up", "Start everything on this machine, with simulated providers.", _RUN),
    "serve": Entry("api.cli.processes.server:serve", "Serve the API and the pages.", _RUN),
    "worker": Entry("api.cli.processes.server:work", "Run background jobs.", _RUN),
    "migrate": Entry("api.cli.processes.server:migrate", "Upgrade the database's schema, roles and privileges.", _RUN),
    "doctor": Entry("api.cli.processes.doctor:doctor", "Check this installation, and suggest fixes.", _RUN),
    "mcp": Entry("api.cli.processes.mcp:mcp", "Serve the Model Context Protocol on stdio, for agents.", _RUN),
    "sign-in": Entry(
        "api.cli.processes.sign_in:sign_in", "Print one-time sign-in links for the demo of `naka up`.", _RUN
    ),
    "tenant": Entry("api.cli.accounts.tenants:app", "Tenants: the operator's customers.", _ACCOUNTS),
    "user": Entry("api.cli.accounts.users:app", "Users of a tenant.", _ACCOUNTS),
    "member": Entry("api.cli.accounts.members:app", "Members: people who sign in, and their roles.", _ACCOUNTS),
    "invite": Entry("api.cli.accounts.members:invite", "Invite a person by a link.", _ACCOUNTS),
    "key": Entry("api.cli.accounts.keys:app", "API keys.", _ACCOUNTS),
    "issuer": Entry("api.cli.accounts.issuers:app", "Issuers of JWTs that a tenant trusts for its users.", _ACCOUNTS),
    "token": Entry("api.cli.accounts.tokens:app", "Short-lived tokens: rotate the secret that signs them.", _ACCOUNTS),
    "plan": Entry("api.cli.billing.plans:app", "Plans: limits and prices.", _BILLING),
    "price": Entry("api.cli.usage.prices:app", "The provider's price list.", _BILLING),
    "operator": Entry("api.cli.billing.profiles:operator", "The supplier on every invoice.", _BILLING),
    "profile": Entry("api.cli.billing.profiles:profile", "A tenant's billing profile.", _BILLING),
    "subscription": Entry("api.cli.billing.subscriptions:app", "Subscriptions at Razorpay.", _BILLING),
    "mandate": Entry("api.cli.billing.mandates:app", "Mandates: what tenants allow to be debited.", _BILLING),
    "bill": Entry("api.cli.billing.bills:app", "Bills and credit notes.", _BILLING),
    "wallet": Entry("api.cli.billing.wallets:app", "Prepaid balances.", _BILLING),
    "coupon": Entry("api.cli.billing.wallets:coupon_app", "Coupons, which give promotional credit.", _BILLING),
    "charge": Entry("api.cli.billing.collection:charge_app", "Attempts to collect bills.", _BILLING),
    "refund": Entry("api.cli.billing.collection:refund_app", "Refunds, and their approval.", _BILLING),
    "ledger": Entry("api.cli.billing.ledger:app", "The ledger under the bills, and its export.", _BILLING),
    "finding": Entry("api.cli.billing.collection:finding_app", "Facts about money that need review.", _BILLING),
    "webhook": Entry("api.cli.billing.collection:webhook_app", "Razorpay's webhook events.", _BILLING),
    "tag-key": Entry("api.cli.usage.tags:app", "Tag keys whose usage is added up by value.", _REPORTS),
    "report": Entry("api.cli.usage.report:app", "Usage and cost reports.", _REPORTS),
    "reconcile": Entry("api.cli.usage.reconcile:app", "Check and repair the stored totals.", _REPORTS),
    "spool": Entry("api.cli.usage.spool:app", "Settlements waiting on this host's disk.", _REPORTS),
    "correct": Entry("api.cli.usage.corrections:correct", "Correct the counts of a request.", _REPORTS),
    "credit": Entry("api.cli.usage.corrections:credit", "Credit usage to a user.", _REPORTS),
}
app = LazyGroup("naka", COMMANDS, help="Meters, limits and bills an AI chat on Claude.")


def run() -> None:
    """Runs the command of this process's arguments, and exits."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except (SettingsError, UnexpectedPooler) as error:
        sys.stderr.write(f"naka: {in_one_line(error)}\n")
        sys.exit(2)
    except (NakaError, ValidationError, *STORE_ERRORS) as error:
        sys.stderr.write(f"naka: {in_one_line(error)}\n")
        sys.exit(1)
