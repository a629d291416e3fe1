"""What a scorer and an embedder that ask no model have in common: the column that their values come from."""

from __future__ import annotations

from abc import abstractmethod
from typing import Self

from pydantic import Field, PrivateAttr, model_validator

from deita_tasks.components import Component
from deita_tasks.models.lazy import Lazy
from deita_tasks.provided import JoinedFile, RowColumn


class ProvidedComponent(Component):
    """Options: a column of the pool's rows, or with `file` one of a Parquet file that is joined to them."""

    column: str | None = Field(None, min_length=1, description="the column; default: the usual one")
    file: str | None = Field(None, min_length=1, description="Parquet file joined by id or by source row; default: the pool's own rows")
    pool: tuple[str, ...] = Field((), description="the pool's files: their content is part of what the values are")

    _held: Lazy[RowColumn | JoinedFile] = PrivateAttr(default_factory=Lazy)

    @model_validator(mode="after")
    def _opened(self) -> Self:
        """A file that is not fit is told here, before anything else is done."""
        self._source()
        return self

    @abstractmethod
    def _usual(self) -> tuple[str, str]:
        """The usual column in the pool's rows, and in a file."""

    def _source(self) -> RowColumn | JoinedFile:
        return self._held.get(self._open)

    def _open(self) -> RowColumn | JoinedFile:
        in_rows, in_file = self._usual()
        if self.file is None:
            return RowColumn(self.column or in_rows, self.pool)
        return JoinedFile(self.file, self.column or in_file, self.pool)

    def release(self) -> None:
        """Closes the file; it is opened again when it is needed."""
        self._held.release()
