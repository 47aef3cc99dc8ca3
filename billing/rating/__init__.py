"""Rating: usage and a plan's terms become lines and amounts. Pure; integers in paise.

A period is priced from its whole reading, minus what earlier bills charged, so rounding can't accumulate.
"""
