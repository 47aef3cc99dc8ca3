"""Razorpay: the typed client, its transport, errors, entities and signatures. The only importer of the Razorpay SDK."""
