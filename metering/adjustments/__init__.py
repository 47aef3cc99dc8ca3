"""The ledger: revisions, corrections and credits, appended on top of measured usage, which is never overwritten."""
