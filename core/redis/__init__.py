"""Redis: the client, the refusal of clusters, and the channel on which processes announce changes.

Redis down: caches live as long as their time to live.
"""
