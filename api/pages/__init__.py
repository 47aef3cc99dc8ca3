"""The pages people see: the chat page here, its template and its static files beside it.

No build step, no framework and nothing loaded from another host: every page works under
`Content-Security-Policy: default-src 'self'`, so no template holds an inline script or style.
"""
