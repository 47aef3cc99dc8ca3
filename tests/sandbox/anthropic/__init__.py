"""The Anthropic simulator beyond a chat: every block, tools, caches, usage by inference and what is refused."""
