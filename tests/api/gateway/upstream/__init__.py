"""Tests of the calls to Anthropic."""
