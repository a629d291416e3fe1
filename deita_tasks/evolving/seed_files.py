"""Read the conversations that chains begin with, and those with labels of the user's."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from deita_tasks import storage
from deita_tasks.config import SeedSource
from deita_tasks.conversations import Conversation, Quarantined
from deita_tasks.errors import EmptyFile, InputError, TooManyBadRows
from deita_tasks.evolving.chains import Seed
from deita_tasks.evolving.evaluation import MeasuredTexts
from deita_tasks.evolving.seeds import draw_seeds, find_seeds
from deita_tasks.loading import (
    PoolFile,
    find_pool,
    open_pool,
)
from deita_tasks.loading.instructions import instruction_layouts, open_instructions
from deita_tasks.manifest import InputFile
from deita_tasks.records import ScoreKind
from deita_tasks.results.versions import result_uri


class SeedData(NamedTuple):
    """The seeds that were drawn, and the files that they come from."""

    seeds: list[Seed]
    inputs: list[InputFile]


def read_seeds(source: SeedSource, random_seed: int) -> SeedData:
    """Return seeds drawn from the first pairs of all conversations.

    Raises TooManyBadRows if a smaller share of the rows than `min_good_fraction` can be read.
    """
    reader = _Reader(source)
    seeds = find_seeds(source.kind, reader, source.seed_strata)
    return SeedData(draw_seeds(seeds, source.chains, random_seed), reader.inputs)


class _Reader:
    """Reads the files of a source, and counts what it reads."""

    def __init__(self, source: SeedSource) -> None:
        self._source = source
        self._unread: list[Quarantined] = []
        self.inputs: list[InputFile] = []

    def __iter__(self) -> Iterator[Conversation]:
        places = [result_uri(uri) for uri in self._source.input]
        for uri, file in _open_files(self._source.kind, places, self._source.format):
            count = 0
            for row in file or ():
                count += 1
                if isinstance(row, Quarantined):
                    self._unread.append(row)
                else:
                    yield row
            name = file.format.name if file else "empty"
            digest = storage.content_digest(uri)
            self.inputs.append(InputFile(uri=uri, digest=digest, rows=count, format=name))
        if not self._rows:
            raise EmptyFile(f"{', '.join(self._source.input)}: no rows; expected conversations")
        self._check()

    @property
    def _rows(self) -> int:
        """The rows of all files that have been read through, good or not."""
        return sum(file.rows for file in self.inputs)

    def _check(self) -> None:
        """Raise TooManyBadRows if too many rows could not be read."""
        good = self._rows - len(self._unread)
        least = self._source.min_good_fraction
        if good < least * self._rows:
            first = self._unread[0]
            raise TooManyBadRows(
                f"{good:,} of {self._rows:,} rows can be read, less than the required {least:.0%}; "
                f"row {first.source.row:,} of {first.source.uri}: {first.detail}; mend them, or "
                "lower min_good_fraction"
            )


def _open_files(
    kind: ScoreKind, uris: Sequence[str], format: str
) -> Iterator[tuple[str, PoolFile | None]]:
    """Yield each file that `uris` name; None if it has no rows. Complexity needs no answers."""
    for uri in find_pool(uris, instruction_layouts()).files:
        try:
            opened = open_pool if kind == "quality" else open_instructions
            yield uri, opened(uri, format)
        except EmptyFile:
            yield uri, None


class LabelledData(NamedTuple):
    """Texts with labels of the user's. seen: how many are left out, as the training has them."""

    texts: MeasuredTexts
    seen: int


def read_labelled(kind: ScoreKind, uris: Sequence[str], column: str) -> MeasuredTexts:
    """Return the first pairs of conversations, as a scorer reads them, with their labels.

    Raises InputError for a row that cannot be read, or has no number there; EmptyFile without rows.
    """
    texts = MeasuredTexts([], [], [])
    files = _open_files(kind, [result_uri(uri) for uri in uris], "auto")
    for row in chain.from_iterable(file or () for _, file in files):
        place = f"row {row.source.row:,} of {row.source.uri}"
        if isinstance(row, Quarantined):
            raise InputError(f"{place}: {row.detail}; expected a labelled conversation")
        label = row.extra.get(column)
        if isinstance(label, bool) or not isinstance(label, int | float):
            names = ", ".join(row.extra) or "no other columns"
            raise InputError(
                f"{place}: label_column = {column!r} holds no number; the row has {names}"
            )
        response = row.pairs[0].response if kind == "quality" else ""
        texts.pairs.append((row.first_instruction, response))
        texts.scores.append(float(label))
    if not texts.pairs:
        raise EmptyFile(f"{', '.join(uris)}: no rows; expected labelled conversations")
    return texts


def without_seen(texts: MeasuredTexts, trained: Collection[tuple[str, str]]) -> LabelledData:
    """Return the texts that a training has not seen."""
    places = [place for place, pair in enumerate(texts.pairs) if pair not in trained]
    kept = MeasuredTexts(
        [texts.pairs[place] for place in places], [texts.scores[place] for place in places], []
    )
    return LabelledData(kept, len(texts.pairs) - len(places))
