"""`python -m api.cli` runs `naka`."""

from api.cli import main

main()
