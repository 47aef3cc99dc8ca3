"""Razorpay's webhooks: verified on the raw bytes, stored once, and processed later by the worker.

An event only names an entity, which is fetched from Razorpay before anything is applied, so order and repetition don't
matter. Postgres down: the delivery is answered 503 and Razorpay sends it again.
"""
