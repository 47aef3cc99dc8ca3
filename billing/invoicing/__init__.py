"""Invoicing: closed periods become bills and credit notes. An unusual bill is held for an operator."""
