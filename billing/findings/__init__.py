"""Findings: billing problems that an operator should look at, each open until an operator or its own end closes it."""

from billing.findings.records import close_finding, list_findings, record_finding, resolve_finding

__all__ = ["close_finding", "list_findings", "record_finding", "resolve_finding"]
