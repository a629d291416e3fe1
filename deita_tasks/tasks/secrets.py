"""API keys of model servers from Prefect Secret blocks."""

from __future__ import annotations

from prefect.blocks.system import Secret

from deita_tasks.errors import UsageError
from deita_tasks.scoring.served import set_secret_reader


def read_secret_block(name: str) -> str:
    """Return the value of a Prefect Secret block. Raises UsageError if there is no such block.

    The key goes into no parameter, result or log.
    """
    try:
        return str(Secret.load(name).get())  # type: ignore[union-attr]
    except ValueError as error:
        raise UsageError(
            f"{name!r}: Prefect has no such Secret block; create it, or name an environment "
            "variable that holds the key"
        ) from error


def enable_secret_blocks() -> None:
    """Let all that asks a server read its API key from a Prefect Secret block."""
    set_secret_reader(read_secret_block)
