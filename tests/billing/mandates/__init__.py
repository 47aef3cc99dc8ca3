"""Mandates: registration, synchronisation, debits of bills."""
