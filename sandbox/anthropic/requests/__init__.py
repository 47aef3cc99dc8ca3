"""The way in: the head, the body, the checks of what Anthropic refuses, the count of the input, and what is asked for.

Modules in the order of a request: `head` (key, version, betas), `body` (bytes to JSON), `fields` (top level), `tools`,
`turns` (roles and pairing), `blocks` and `media` (content), `caching` (marks and segments), `threads`, `counting`
(tokens), `asking` (the script and the directives in the text).
"""
