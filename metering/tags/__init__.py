"""Tags of requests: which values are added up by the rollup `usage_by_tag`, and the budgets of a tag.

Tags and the keys that are added up are fixed when a request opens; docs/tags.md. Postgres down: as the journal.
"""
