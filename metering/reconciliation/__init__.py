"""Proof of the books: rollups against rows, Redis against Postgres, ours against the provider's report.

Checks change nothing; `repair` recomputes sums from rows and entries, which are the truth. Redis down: its check says
so and the others run.
"""
