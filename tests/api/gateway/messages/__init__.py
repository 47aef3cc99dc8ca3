"""Tests of `/v1/messages` and the routes beside it."""
