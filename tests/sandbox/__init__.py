"""Tests of the laptop's own servers and simulators."""
