"""HTML pages, rendered on the server, with small script modules where a page updates itself.

Pages read forms, call services, and render. An error is a page in words; Postgres down: 503.
"""
