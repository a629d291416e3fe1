"""What to know about a selection beside its counts, and how to say it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from pydantic import Field, NonNegativeFloat, NonNegativeInt

from deita_tasks.languages import UNDETERMINED, language_name
from deita_tasks.strict_json import JsonRecord

NAMED_LANGUAGES = 8
NAMED_COLUMNS = 5


class MediaRows(JsonRecord):
    """Conversations with images, audio or video. too_similar: as are the rows that blocked them."""

    pool: NonNegativeInt = 0
    selected: NonNegativeInt = 0
    too_similar: NonNegativeInt = 0


class OtherLanguages(JsonRecord):
    """Conversations in languages that the models of some stages were not made for.

    made_for: codes of the languages that these models read. pool, selected: rows by code;
    selected is None before a selection.
    """

    stages: list[str]
    made_for: list[str]
    pool: dict[str, NonNegativeInt]
    selected: dict[str, NonNegativeInt] | None = None


def find_other_languages(
    pool: Mapping[str, int],
    made_for: Mapping[str, Sequence[str]],
    selected: Mapping[str, int] | None = None,
) -> list[OtherLanguages]:
    """Return which rows are in other languages than those that the models were made for.

    pool, selected: rows by language. made_for: languages by stage; stages that share theirs are
    told of once.
    """

    def languages_of(stage: str) -> list[str]:
        """Return the codes that a stage's model was made for, sorted: equal lists fall together."""
        return sorted(made_for[stage])

    found = []
    for codes, stages in groupby(sorted(made_for, key=languages_of), languages_of):
        read = {*codes, UNDETERMINED}
        unread = {code: rows for code, rows in pool.items() if rows and code not in read}
        others = OtherLanguages(stages=list(stages), made_for=codes, pool=unread)
        if selected is not None:
            rows = {code: selected[code] for code in others.pool if selected.get(code)}
            others = others.model_copy(update={"selected": rows})
        if others.pool:
            found.append(others)
    return found


class VanishedValue(JsonRecord):
    """A value of a column that no selected row has. expected: rows of a random selection."""

    column: str
    value: str
    rows: NonNegativeInt
    expected: NonNegativeFloat


class Findings(JsonRecord):
    """What to know about a selection beside its counts.

    Counts are of distinct rows: neither quarantined nor duplicates. differing_duplicates:
    duplicates with other values than their first row in differing_columns. half_read_pairs: too
    similar rows of which the embedder read only a part, as of the row that blocked them.
    shared_beginnings: too similar rows that begin like the row that blocked them, over hundreds of
    words, and have another answer.
    """

    rows: NonNegativeInt = 0
    unanswered_exchanges: NonNegativeInt = 0
    unanswered_rows: NonNegativeInt = 0
    media: MediaRows = MediaRows()
    differing_duplicates: NonNegativeInt = 0
    differing_columns: list[str] = Field(default_factory=list)
    half_read_pairs: NonNegativeInt = 0
    shared_beginnings: NonNegativeInt = 0
    other_languages: list[OtherLanguages] = Field(default_factory=list)
    vanished: list[VanishedValue] = Field(default_factory=list)

    def sentences(self, counts: Mapping[str, int]) -> list[str]:
        """Return the findings as sentences. counts: rows by decision."""
        return [
            *self._unanswered(),
            *self._media(counts),
            *self._duplicates(counts),
            *self._half_read(counts),
            *self._shared_beginnings(counts),
            *(describe_languages(other, self.rows) for other in self.other_languages),
        ]

    def _unanswered(self) -> Iterator[str]:
        """Yield how many exchanges have no answer, if any."""
        if self.unanswered_exchanges:
            exchanges = plural(self.unanswered_exchanges, "exchange")
            rows = plural(self.unanswered_rows, "conversation")
            were = "was" if self.unanswered_exchanges == 1 else "were"
            yield f"{exchanges} without an answer in {rows} {were} not scored."

    def _media(self, counts: Mapping[str, int]) -> Iterator[str]:
        """Yield where images and the like are, which no model here reads."""
        media = self.media
        if media.pool:
            yield (
                f"Images, audio or video are in {plural(media.pool, 'conversation')} of the pool "
                f"and {media.selected:,} of the selection. No model here reads them: scores and "
                "similarities rest on the text alone."
            )
        if media.too_similar:
            yield (
                f"{media.too_similar:,} of the {counts['too_similar']:,} rows rejected as too "
                "similar and the rows that blocked them have media, which may differ."
            )

    def _duplicates(self, counts: Mapping[str, int]) -> Iterator[str]:
        """Yield how many duplicates differ from their first row in other columns, if any."""
        if self.differing_duplicates:
            columns = _list_some(self.differing_columns, NAMED_COLUMNS)
            duplicates = plural(counts["duplicate"], "duplicate")
            yield (
                f"{duplicates}, {self.differing_duplicates:,} of "
                f"them with other values than the first row in other columns ({columns})."
            )

    def _half_read(self, counts: Mapping[str, int]) -> Iterator[str]:
        """Yield how many pairs the embedder read in part, if any."""
        if self.half_read_pairs:
            pairs = f"{self.half_read_pairs:,} of the {counts['too_similar']:,} too similar pairs"
            were = "was" if self.half_read_pairs == 1 else "were"
            yield (
                f"{pairs} {were} compared by their beginnings alone: both texts are longer than "
                "the embedder's window."
            )

    def _shared_beginnings(self, counts: Mapping[str, int]) -> Iterator[str]:
        """Yield how many pairs share a long beginning and answer otherwise, if any."""
        if self.shared_beginnings:
            yield (
                f"{self.shared_beginnings:,} of the {counts['too_similar']:,} too similar rows: "
                "a long beginning, such as a document, is shared with the row that blocked it, "
                "and the answer is another. A higher max_similarity keeps more such rows."
            )


def describe_languages(other: OtherLanguages, rows: int) -> str:
    """Return what share of `rows` is in other languages than the models were made for."""
    count = sum(other.pool.values())
    named = [f"{language_name(code)} {number:,}" for code, number in other.pool.items()]
    made_for = _join([language_name(code) for code in other.made_for])
    stages = _join(other.stages)
    languages = _list_some(named, NAMED_LANGUAGES)
    conversations = plural(rows, "conversation")
    selected = ""
    if other.selected is not None:
        number = sum(other.selected.values())
        selected = f" and {number:,} of those selected"
    return (
        f"{count:,} of {conversations} ({count / rows:.1%}){selected} are in "
        f"languages other than {made_for}, which the models of "
        f"{stages} were made for: {languages}."
    )


def describe_vanished(value: VanishedValue) -> str:
    """Return what a warning says of a value."""
    return (
        f"no selected row has {value.column} = {value.value}: {value.rows:,} of the pool have it, "
        f"and a random selection would have about {value.expected:.1f}"
    )


def plural(number: int, noun: str) -> str:
    """Return "1 row" or "2 rows"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _join(names: Sequence[str]) -> str:
    """Return "a, b and c"."""
    if len(names) < 2:
        return "".join(names)
    first = ", ".join(names[:-1])
    return f"{first} and {names[-1]}"


def _list_some(names: Sequence[str], most: int) -> str:
    """Return "a, b and 3 more": at most `most` names, and the number of the others."""
    some = ", ".join(names[:most])
    if len(names) <= most:
        return some
    return f"{some} and {len(names) - most:,} more"
