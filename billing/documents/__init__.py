"""Printable invoices and credit notes: lines, HTML and PDF, rendered from the bill's row alone."""
