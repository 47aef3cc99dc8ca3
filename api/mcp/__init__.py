"""The Model Context Protocol: read-only tools with which an agent asks a tenant's own books, over `api.services`.

`POST /mcp` (streamable HTTP, stateless) authenticates like every unmetered route; `naka mcp` passes stdio on to it.
"""
