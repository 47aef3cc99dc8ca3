"""`/v1/messages`, its token counts and its models: Anthropic's own API, served to the clients of a tenant.

A body is read once, classified (`body`, `features`, `prompt_bound`), and sent on as it came, but for `max_tokens` and
`stream`. Errors have Anthropic's form (`errors`). Ids of things in the operator's workspace (files, containers,
threads) are refused, because Anthropic would not tell tenants apart. Anthropic down: an error of Anthropic's form, and
nothing is charged.
"""
