"""Rating: usage and the terms of a plan become lines and amounts. Pure; integers in paise.

The price of a period is computed from its whole reading, minus what earlier bills took, so rounding cannot accumulate.
"""
