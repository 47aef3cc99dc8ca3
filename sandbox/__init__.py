"""A laptop's worth of everything: real Postgres and Valkey from wheels, simulators of Anthropic and Razorpay."""
