"""Run the simulator: `python -m sandbox.oidc --port N`. Prints `listening on http://HOST:PORT` when it is ready."""

import argparse

from core.parent_exit import end_with_parent
from core.settings.sign_in import SANDBOX_OIDC_CLIENT_ID, SANDBOX_OIDC_CLIENT_SECRET
from sandbox.oidc.app import create_app
from sandbox.oidc.people import read_people
from sandbox.serving import serve


def main() -> None:
    """Read the arguments and serve until told to stop."""
    parser = argparse.ArgumentParser(prog="sandbox.oidc", description="Simulator of an OpenID Connect provider")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True, help="0: any free one")
    parser.add_argument("--issuer", default="", help="its URL; default: as first called")
    parser.add_argument("--client-id", default=SANDBOX_OIDC_CLIENT_ID)
    parser.add_argument("--client-secret", default=SANDBOX_OIDC_CLIENT_SECRET)
    parser.add_argument("--person", action="append", default=[], metavar="EMAIL=NAME", help="somebody to choose")
    parser.add_argument("--with-parent", action="store_true", help="end when standard input does")
    options = parser.parse_args()
    if options.with_parent:
        end_with_parent()
    people = read_people(options.person)
    app = create_app(options.client_id, options.client_secret, issuer=options.issuer, people=people)
    serve(app, options.host, options.port)


if __name__ == "__main__":
    main()
