"""The environments that people have: each module is run by itself, as `python -m tests.matrix.NAME`."""
