"""What a tenant's subscription gives it: billing cycles, periods, and the entitlement that admission reads.

Everything runs under the tenant's lock, and the projection is written in the same transaction as its cause.
"""
