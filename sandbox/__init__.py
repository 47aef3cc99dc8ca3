"""Local services for development and tests: Postgres and Valkey from wheels, simulators of three providers.

These are Anthropic, Razorpay and an identity provider.
"""
