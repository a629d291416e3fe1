"""The `deita` command."""

import sys
from collections.abc import Sequence

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line. What it needs loads now: `flows.cli.server` has to start at once."""
    try:
        from flows.cli.app import main
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    main(arguments)
