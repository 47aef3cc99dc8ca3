"""Prometheus metrics and OpenTelemetry traces of this process. No prompt, answer or secret is in either."""
