"""One story a file, told over HTTP with real servers and real processes."""
