"""People who sign in at the identity provider: arrivals, members and their roles, invitations.

Only owners and operators change who is a member; a tenant's admin sees the list.
"""
