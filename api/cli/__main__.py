"""`python -m api.cli`: the same as `naka`."""

from api.cli import main

main()
