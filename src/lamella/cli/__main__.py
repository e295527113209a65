"""`python -m lamella.cli` is `lamella`."""

from lamella.cli import main

main()
