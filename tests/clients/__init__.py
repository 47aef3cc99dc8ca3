"""Anthropic's clients and frameworks, unmodified, against Naka: `python -m tests.clients`.

`catalogue` names the clients, `scripts` has a program for each in its own language, `installation` puts them into a
cache folder, `task` is what a program is told, `trial` runs it and compares what it saw, and what is stored, with the
simulator's ledger.
"""
