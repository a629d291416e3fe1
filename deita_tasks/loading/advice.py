"""What to do about rows that match no format."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from deita_tasks.loading.base import RowFormat, list_names

# Columns that say what else a file is for; the first that a file has.
OTHER_KINDS = (
    (
        {"chosen", "rejected"},
        "this is a preference pool (chosen and rejected answers); to select from it, keep one "
        "answer a row, for example the chosen one as 'response' beside 'prompt'",
    ),
    (
        {"completion", "label"},
        "these are single answers with a verdict (KTO); to select from them, keep the rows whose "
        "label is true, and name the columns 'prompt' and 'response'",
    ),
    ({"completions"}, "each row has several answers; keep one a row, as 'response'"),
    ({"responses"}, "each row has several answers; keep one a row, as 'response'"),
    ({"text"}, "these are plain texts; expected instructions with their responses"),
    ({"completion"}, "these are answers without their instructions; add a column 'prompt'"),
)
QUESTION_NAMES = ("instruct", "prompt", "question", "problem", "query", "input", "user", "task")
ANSWER_NAMES = ("respons", "output", "completion", "solution", "assistant", "answer", "target")


def explain_mismatch(
    columns: Collection[str], first_problem: str | None, layouts: Sequence[RowFormat]
) -> str:
    """Return the message for a file whose rows match no layout.

    columns: of its readable rows. first_problem: of the first row that cannot be read.
    """
    if not columns:
        return f"no row can be read (the first problem: {first_problem}); {_expected(layouts)}"
    advice = _advise(columns)
    return f"unknown format: its rows have {list_names(columns)}; {advice}{_expected(layouts)}"


def _expected(layouts: Sequence[RowFormat]) -> str:
    """Return the formats with their columns, each once: a format has many layouts."""
    formats = dict.fromkeys(f"{layout.name}: {layout.expected}" for layout in layouts)
    return f"expected {'; '.join(formats)}"


def _advise(columns: Collection[str]) -> str:
    """Return what the columns are and what to do, or ""."""
    names = {name.lower(): name for name in columns}
    for kind, advice in OTHER_KINDS:
        if kind <= names.keys():
            return f"{advice}; "
    answer = _find(names, ANSWER_NAMES)
    question = _find({low: name for low, name in names.items() if name != answer}, QUESTION_NAMES)
    if question and answer:
        return (
            f"if {question!r} holds the instructions and {answer!r} the responses, rename these "
            "columns to 'prompt' and 'response'; "
        )
    if question:
        return f"{question!r} may hold the instructions, but nothing their responses; "
    return ""


def _find(names: dict[str, str], stems: Sequence[str]) -> str | None:
    """Return the column that contains the first of `stems` that any contains; None without one.

    names: of the columns, by their lower-case form. Earlier stems win, whatever the columns' order.
    """
    found = (name for stem in stems for low, name in names.items() if stem in low)
    return next(found, None)
