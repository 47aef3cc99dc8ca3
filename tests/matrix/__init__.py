"""Every way in which a store can fail, on every version that is supported: `python -m tests.matrix`."""
