"""Read the texts of evaluation files, which no training may repeat."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from deita_tasks.conversations import Quarantined
from deita_tasks.errors import EmptyFile
from deita_tasks.filtering.decontamination import EvaluationText, EvaluationTexts, OverlapRule
from deita_tasks.findings import plural
from deita_tasks.loading.evaluation_rows import read_evaluation_rows

log = logging.getLogger(__name__)

MAX_EXAMPLES = 3  # evaluation rows named in a note


def read_evaluation_texts(
    files: Sequence[str], rule: OverlapRule, notes: list[str]
) -> EvaluationTexts:
    """Return what user and assistant say in all files; note the rows that cannot be read.

    Raises InputError for a file that cannot be read, EmptyFile if there is no text.
    """
    texts = EvaluationTexts(_read_texts(files, notes), rule)
    if not len(texts):
        raise EmptyFile(f"{', '.join(files)}: no text to compare with; expected prompts or answers")
    return texts


def _read_texts(files: Sequence[str], notes: list[str]) -> Iterator[EvaluationText]:
    """Yield every user and assistant turn, numbered from 1 within its row.

    Adds a line to `notes` for each file with rows that could not be read: they are not compared.
    """
    for uri in files:
        unread = []
        for row in read_evaluation_rows(uri):
            if isinstance(row, Quarantined):
                unread.append(f"row {row.source.row:,}: {row.detail}")
                continue
            for number, turn in enumerate(row.turns, start=1):
                if turn.role in ("user", "assistant"):
                    yield EvaluationText(uri, row.source.row, number, turn.role, turn.content)
        if unread:
            note = (
                f"{uri}: {plural(len(unread), 'row')} could not be read or compared with "
                f"({'; '.join(unread[:MAX_EXAMPLES])})"
            )
            log.warning("%s", note)
            notes.append(note)
