"""`lamella`, and `python -m lamella`: what stops a command is set up before anything that takes time is imported."""

from lamella.stopping import stop_on_signals


def main() -> None:
    """Run the command line."""
    stop_on_signals()
    from lamella.cli import main as run

    run()


if __name__ == "__main__":
    main()
