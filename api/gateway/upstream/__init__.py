"""The calls to Anthropic: connections, requests and retries, and the events of a stream.

Answers are streamed over connections of our own; only `client` knows Anthropic's SDK, which counts tokens. The provider
down or refusing: an `UpstreamFault`, which says whether anything was sent.
"""
