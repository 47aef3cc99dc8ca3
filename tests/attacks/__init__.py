"""Attacks on a whole server, each a script."""
