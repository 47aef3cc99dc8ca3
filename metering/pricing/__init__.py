"""Prices: token classes, the cost of a request at the provider, and the price list.

Costs are integers in nano-USD and exact. The price list is append-only: an entry holds from its date on, so an old
request keeps its price. Postgres down: a process goes on with the list it has read.
"""
