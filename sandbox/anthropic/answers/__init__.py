"""The answer: its blocks, its usage, its events, and how it is sent.

Modules in order: `json_schema` (an example for a schema), `server_tools` (call and result in one), `blocks` (a block as
start and deltas), `content` (which blocks), `cutting` (max_tokens and stop sequences), `usage` (inferences and counts),
`plan` (all of it), `events` (bytes), `reply` (sending and faults).
"""
