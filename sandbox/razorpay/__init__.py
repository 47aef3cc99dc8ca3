"""A simulator of Razorpay: plans, subscriptions, invoices, payments, links and refunds, with a clock to move.

The rule it keeps: what goes out has the shape of `facts/razorpay.md`, and `/_sim/ledger` tells afterwards, to the
paisa, what was collected and given back. Where the facts say *unconfirmed*, the code says `assumption`. The model
(`calendar` to `disputes`) is functions over dataclasses that are given the time; they neither read a clock nor do I/O.
It leans on nothing: all state is in memory; a file can keep it from one start to the next.

Its files, in the order a month meets them: `calendar` (IST cycles), `entities` and `books` (what there is), `refusals`
(how it says no), `wire` (what it looks like), `events` (what is announced), `payments`, `charging` and
`subscriptions` (the state machine), `schedule` (what falls due), `addons`, `links`, `invoices`, `refunds`; `clock`,
`deliveries` (webhooks), `faults`, `account` (all of it together), `state` (its file), `router`, `routes`, `controls`
and `ledger` (`/v1` and `/_sim`), `pages` (what a person clicks), `app`.
"""

from sandbox.razorpay.app import create_app

__all__ = ["create_app"]
