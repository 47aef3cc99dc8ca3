"""Indian tax: GST, GSTINs and state codes, invoice numbers, amounts in rupees.

Amounts are integers in paise. Numbers are consecutive in a series and a financial year (rule 46 of the CGST Rules).
"""
