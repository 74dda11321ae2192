"""``python -m spotproof``: the command line."""

from spotproof.cli import main

main()
