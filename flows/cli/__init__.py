"""The `deita` command."""

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line. What it needs loads now: `flows.cli.server` has to start at once."""
    from flows.cli.app import main

    main(arguments)
