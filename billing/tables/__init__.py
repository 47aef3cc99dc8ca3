"""The tables of billing, by what they are about. `billing.models` names them all.

Moments are integers: milliseconds since 1970 by the project's clock (`core.clock.now_ms`), as the pure modules take
them. Amounts are paise. `tenant_id` comes first in the key of all that is a tenant's.
"""
