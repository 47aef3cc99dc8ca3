"""Razorpay: the typed client, its transport, errors, entities and signatures.

The only package that imports the Razorpay SDK. Razorpay down: calls raise RazorpayError, which says whether the call
may have taken effect; nothing here writes to our database.
"""
