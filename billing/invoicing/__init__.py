"""Invoicing: closed periods become bills and credit notes.

Amounts come from the meters at the time of the close. A bill is issued once, with the next number of its series, in the
transaction that commits it; what looks wrong is held for a person.
"""
