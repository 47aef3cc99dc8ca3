"""Reconciliation: rollups against rows, Redis against Postgres, measured usage against the provider's report.

Checks change nothing; `repair` corrects totals from rows and entries, which are authoritative. Postgres down:
`Unavailable`. Redis down: its check says so, and the others run.
"""
