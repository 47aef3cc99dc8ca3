"""The ledger: revisions, corrections and credits, appended on top of what was measured.

Rows of the journal are never overwritten; an entry moves the rollups, the meters and the tenant's epoch in the same
transaction. Postgres down: nothing is appended.
"""
