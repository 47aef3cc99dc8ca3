"""Tests of `/chat`: the body, and the forms of the answer."""
