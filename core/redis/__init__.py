"""Redis: the client, the refusal of clusters, and the channel of cache invalidations.

Redis down: cached entries stay until their time to live ends.
"""
