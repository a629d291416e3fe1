"""The errors that a user of this project sees.

    DeitaError
    ├── UsageError            a parameter is wrong
    │   ├── MissingExtra      an option needs an optional dependency; names the `pip install`
    │   └── OutputExists      the output folder is not empty and --overwrite was not given
    ├── InputError            the pool cannot be read: no such file, no rows or an unknown format
    │   ├── EmptyFile         a file has no rows; skipped with a warning if other files have some
    │   ├── TooManyBadRows    fewer good rows than `min_good_fraction` allows
    │   └── TooFewRows        fewer rows than the budget, and the target size is exact
    ├── ModelError            a model folder, tokenizer or checkpoint cannot be used
    ├── ComputeError          a model returned something that is not a score or a vector
    │   ├── TrainingFailed    a training cannot go on with these parameters
    │   └── ServerError       a model server does not answer; trying again later may help
    │       └── ServerUnreachable   nothing was ever heard of it: most often a wrong address
    ├── ApprovalMissing       nobody answered whether a version may be published
    └── StorageError          an artifact could not be read or written
        ├── MissingFile       the file does not exist
        ├── HubUnreachable    the Hugging Face hub does not answer, or may not be asked
        └── DamagedArtifact   its content is not what was written

Every message says what arrived, what was expected, and what to do. `exit_status` is the exit
status of the command: 2 for errors that the user can fix on the command line, 1 for all others.
"""


class DeitaError(Exception):
    """Base class of all expected errors. Any other exception is a bug in this project."""

    exit_status = 1


class UsageError(DeitaError):
    """A parameter is wrong.

    Raised before any output is written and, whenever possible, before anything is computed.
    """

    exit_status = 2


class MissingExtra(UsageError):
    """An option needs an optional dependency that is not installed."""

    def __init__(self, choice: str, package: str, extra: str) -> None:
        super().__init__(
            f"{choice!r} needs the package {package!r}, which is not installed: pip install "
            f"'deita-tasks[{extra}]'"
        )
        self._arguments = (choice, package, extra)

    def __reduce__(self) -> tuple[type["MissingExtra"], tuple[str, str, str]]:
        return type(self), self._arguments  # so that it can be sent between processes


class OutputExists(UsageError):
    """The output folder is not empty."""


class InputError(DeitaError):
    """The pool cannot be read."""

    exit_status = 2


class EmptyFile(InputError):
    """A file of the pool has no rows; perhaps it is still being written."""


class TooManyBadRows(InputError):
    """The share of good rows is below `min_good_fraction`."""

    exit_status = 1


class TooFewRows(InputError):
    """The pool has fewer rows than an exact target size."""

    exit_status = 1


class ModelError(DeitaError):
    """A model folder, a tokenizer or a checkpoint cannot be used."""


class ComputeError(DeitaError):
    """A model returned something that is not a score or a vector."""


class TrainingFailed(ComputeError):
    """A training cannot go on with its parameters: its loss is no number, or memory runs out."""

    exit_status = 2


class ServerError(ComputeError):
    """A model server cannot be reached or does not answer, even after several attempts."""


class ServerUnreachable(ServerError):
    """No connection to a model server, which has not answered before: most often a wrong URL."""


class ApprovalMissing(DeitaError):
    """Nobody answered in time whether a version may be published."""


class StorageError(DeitaError):
    """An artifact could not be read or written."""


class MissingFile(StorageError):
    """A file does not exist."""


class HubUnreachable(StorageError):
    """The Hugging Face hub does not answer, or may not be asked; its files can lie here instead."""

    exit_status = 2


class DamagedArtifact(StorageError):
    """The content of an artifact is not what was written."""
