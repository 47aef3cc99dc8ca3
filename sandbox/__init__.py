"""Local services for development and tests: Postgres and Valkey from wheels, simulators of Anthropic and Razorpay."""
