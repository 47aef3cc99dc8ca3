"""Proofs too heavy for every run of the suite: each is one command, and says which."""
