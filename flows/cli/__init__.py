"""The `deita` command."""

import os
import signal
import sys
import time
from collections.abc import Sequence

INTERRUPTED = 130
LOADED = time.monotonic()


def seconds_since_start() -> float:
    """Return how long this process has run; where the system does not say, since it loaded this."""
    try:
        with open("/proc/self/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
        start = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return time.clock_gettime(time.CLOCK_BOOTTIME) - start
    except (OSError, ValueError, IndexError, AttributeError):
        return time.monotonic() - LOADED


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line. What it needs loads now: `flows.cli.server` has to start at once."""
    try:
        from flows.cli.app import main
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    try:
        main(arguments)
    finally:
        # The command is over: an interruption of what libraries do at exit would be a traceback.
        signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
