"""The HTTP server and the command line: gateway, services, and the routes, pages and commands over them."""
