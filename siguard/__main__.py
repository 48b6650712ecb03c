"""``python -m siguard``: the command line, where the installed command is not on the path."""

from siguard.cli import main

main()
