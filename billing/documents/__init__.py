"""Invoices and credit notes as people see them: lines, HTML and PDF.

A document is rendered from the bill's own row, which copied both parties and the tax at the time of issue.
"""
