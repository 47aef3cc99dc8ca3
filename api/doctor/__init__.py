"""Checks of an installation, each with a suggested fix and a time limit of a few seconds.

A check whose server is down is `not checked`, not a fault of its own. Checks change nothing, and never print a secret:
of a foreign error they print the type only.
"""
