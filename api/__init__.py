"""The only package that speaks HTTP: middleware, relay, routes, pages and the CLI."""
