"""Attacks on a whole server: each is a script of its own."""
