"""Read preference pairs from files in any format that pools have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from deita_tasks.conversations import SourceRow
from deita_tasks.errors import InputError
from deita_tasks.finetuning.examples import LeftOut
from deita_tasks.finetuning.preferences import NotAPreference, Preference, parse_preference
from deita_tasks.loading import load_layouts, pool_files
from deita_tasks.loading.pool import detect_file
from deita_tasks.loading.reading import read_rows
from deita_tasks.strict_json import JSON


def read_preferences(uris: Sequence[str]) -> tuple[list[Preference], list[LeftOut]]:
    """Return the preferences in files, by id, and the rows that are none.

    Raises InputError if there is none at all.
    """
    preferences: list[Preference] = []
    left_out: list[LeftOut] = []
    for uri in pool_files(list(uris)):
        for source, columns in _read_columns(uri):
            try:
                if isinstance(columns, str):
                    raise NotAPreference(f"it cannot be read: {columns}")
                preferences.append(parse_preference(columns, source))
            except NotAPreference as error:
                left_out.append(LeftOut(source, "", str(error)))
    if not preferences:
        reasons = Counter(row.reason for row in left_out).most_common(3)
        problem = "; ".join(f"{count:,} rows: {reason}" for reason, count in reasons)
        raise InputError(
            f"{', '.join(uris)}: no preference pair ({problem or 'no rows'}); expected the columns "
            "prompt, chosen and rejected"
        )
    return sorted(preferences, key=lambda preference: preference.id), left_out


def _read_columns(uri: str) -> Iterator[tuple[SourceRow, Mapping[str, JSON] | str]]:
    """Yield the columns of each row of a file, or what is wrong with the row."""
    file = detect_file(uri, load_layouts(), require_match=False)
    for row in read_rows(uri, file.compression, file.container):
        columns = str(row.problem) if row.columns is None else row.columns
        yield SourceRow(uri, row.number), columns
