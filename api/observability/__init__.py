"""Prometheus metrics and OpenTelemetry traces of this process. Neither contains prompts, answers or secrets."""
