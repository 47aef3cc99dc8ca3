"""A simulator of Razorpay: plans, subscriptions, invoices, payments, links and refunds, with a movable clock.

Answers follow Razorpay's API reference, and `/_sim/ledger` shows exactly what was collected and refunded. Where
it leaves something open, the code says `assumption`. The model (`calendar` to `refunds`) consists of functions over
dataclasses that get the time as an argument and do no I/O. All state is in memory; a file can keep it between starts.

Modules, in the order of a month: `calendar` (IST cycles), `entities` and `books` (data), `refusals` (errors), `wire`
(JSON), `events`, `payments`, `charging` and `subscriptions` (the state machine), `schedule` (timed steps), `addons`,
`links`, `invoices`, `refunds`; `clock`, `deliveries` (webhooks), `faults`, `account` (all of it together), `state` (its
file), `router`, `routes`, `controls` and `ledger` (`/v1` and `/_sim`), `pages` (the payer's pages), `app`.
"""

from sandbox.razorpay.app import create_app

__all__ = ["create_app"]
