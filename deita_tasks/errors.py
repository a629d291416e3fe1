"""The one family of errors that a user of this project sees.

    DeitaError
    ├── UsageError            a parameter is wrong: found before the work where that can be known
    │   ├── MissingExtra      the choice needs an optional dependency; names the `pip install`
    │   └── OutputExists      the output folder is not empty and --overwrite was not given
    ├── InputError            the pool cannot be read as a whole (no such file, no rows, no known format)
    │   ├── EmptyFile         a file of the pool holds nothing; among others it is passed over, with a warning
    │   ├── TooManyBadRows    fewer good rows than `min_good_fraction` allows
    │   └── TooFewRows        the pool ran out before the budget, and the target size is exact
    ├── ModelError            a model folder, tokenizer or checkpoint is not fit for the job
    ├── ComputeError          a model gave something that is not a score or a vector
    │   └── ServerError       a model's server cannot be reached or does not answer; trying again later may help
    └── StorageError          an artifact could not be read or written
        ├── MissingFile       it is not there
        └── DamagedArtifact   it is there, but it is not what was written

Every message says what arrived, what was expected, and what to do. `exit_status` is what the
command line ends with: 2 for what the user can put right in the command, 1 for everything else.
"""


class DeitaError(Exception):
    """Root of the family: anything else that escapes is a defect of this project."""

    exit_status = 1


class UsageError(DeitaError):
    """A parameter is wrong; raised before anything is computed where that can be known, and always
    before anything is written out.
    """

    exit_status = 2


class MissingExtra(UsageError):
    """A choice needs an optional dependency that is not installed."""

    def __init__(self, choice: str, package: str, extra: str) -> None:
        super().__init__(
            f"{choice!r} needs the package {package!r}, which is not installed: pip install "
            f"'deita-tasks[{extra}]'"
        )
        self.asked = (choice, package, extra)

    def __reduce__(self) -> tuple[type["MissingExtra"], tuple[str, str, str]]:
        return type(self), self.asked  # so that it comes whole from a worker's process


class OutputExists(UsageError):
    """The output folder holds something already."""


class InputError(DeitaError):
    """The pool cannot be read as a whole."""

    exit_status = 2


class EmptyFile(InputError):
    """A file of the pool holds nothing: somebody is still writing it, perhaps."""


class TooManyBadRows(InputError):
    """The share of good rows fell under the floor."""

    exit_status = 1


class TooFewRows(InputError):
    """The pool ran out before the budget, where exactly that many rows were asked for."""

    exit_status = 1


class ModelError(DeitaError):
    """A model folder, a tokenizer or a checkpoint is not fit for what was asked of it."""


class ComputeError(DeitaError):
    """A model gave something that is not a score or a vector."""


class ServerError(ComputeError):
    """A model's server cannot be reached or does not answer, also after several attempts."""


class StorageError(DeitaError):
    """An artifact could not be read or written."""


class MissingFile(StorageError):
    """A file is not there."""


class DamagedArtifact(StorageError):
    """An artifact is there, but it is not what was written."""
