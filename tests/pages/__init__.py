"""The pages, in this process: what they say, what they refuse, and to whom."""
