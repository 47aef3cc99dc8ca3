"""A simulator of an OpenID Connect provider: discovery, authorization code with PKCE, ID tokens, keys that rotate.

It follows OpenID Connect Core 1.0, RFC 7636 (PKCE) and RFC 9207 (`iss` in answers), and refuses what they refuse. Its
sign-in page is a list of people to choose from: no passwords. `/_sim` adds people, rotates keys and orders faults. All
state is in memory, so codes and keys are new at each start; subjects derive from the email and stay.

Modules: `people`, `keys`, `faults`, `provider` (all of it together), `pages`, `app`.
"""

from sandbox.oidc.app import create_app

__all__ = ["create_app"]
