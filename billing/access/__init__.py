"""The access that a subscription gives: billing cycles, periods, and the entitlement that admission reads."""
