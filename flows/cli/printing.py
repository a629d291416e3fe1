"""What the commands say: tables for a terminal, plain lines elsewhere. A text of the pool can act
on neither.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from deita_tasks.config import Selection
    from deita_tasks.preflight import Check
    from deita_tasks.records import Conversation
    from deita_tasks.results.explain import Explanation, Line

# Control characters but tab and newline; what ends a line or turns its direction elsewhere; halves
# of surrogate pairs.
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
MOST_CHARACTERS = 1_500  # of one turn
SHORT_ID = 12
PLAIN_WIDTH = 120  # of a table where there is no terminal

DECISIONS = {
    "selected": "",
    "too_similar": "to a better one that was kept",
    "below_budget": "never reached: the budget was full",
    "duplicate": "of a row before",
    "quarantined": "could not be read; each with its reason in decisions.parquet",
    "unscorable": "a model gave no score or vector; each with its reason in decisions.parquet",
}


def inert(text: str) -> str:
    """`text` with what could act on a terminal as escapes that can be read."""
    lines = text.replace("\r\n", "\n")
    return UNSAFE.sub(
        lambda found: (
            f"\\x{ord(found[0]):02x}" if ord(found[0]) < 256 else f"\\u{ord(found[0]):04x}"
        ),
        lines,
    )


def new_console() -> Console:
    """Standard output as it is now. Nothing that is printed is taken for markup; elsewhere than in
    a terminal no line is broken.
    """
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(
            errors="backslashreplace"
        )  # texts have letters that the terminal's encoding may not have
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.soft_wrap, console.width = True, max(console.width, PLAIN_WIDTH)
    return console


# ---- select


def print_summary(manifest: Mapping[str, Any], selection: Selection, output: str) -> None:
    """What was read, quarantined, taken from the store, selected and rejected, and where it lies."""
    counts, table = manifest["counts"], Table(box=None, show_header=False, pad_edge=False)
    table.add_row("read", f"{counts['read']:,}", "rows")
    for decision, why in DECISIONS.items():
        if counts[decision] or decision == "selected":
            table.add_row(decision.replace("_", " "), f"{counts[decision]:,}", why)
    for stage, tasks in manifest["tasks"].items():
        computed, reused, cut = (
            manifest["computed"][stage],
            manifest["reused"][stage],
            manifest["truncated"][stage],
        )
        told = (
            f"rows computed, {reused:,} taken from the store ({tasks['run']} tasks run, "
            f"{tasks['cached']} Cached)"
        )
        table.add_row(stage, f"{computed:,}", told)
        if cut:
            read = "it read their beginning" if stage == "embedding" else "a part was left out"
            table.add_row("", f"{cut:,}", f"rows were longer than the model's window; {read}")
    console = new_console()
    console.print(table)
    if counts["selected"] < selection.budget:
        from deita_tasks.artifacts.selection import ran_out

        console.print(f"\n{ran_out(counts, selection)}")
    seconds = sum(manifest["timings"].values())
    console.print(
        f"\n{seconds:.1f} s: "
        + ", ".join(f"{stage} {taken:.1f}" for stage, taken in manifest["timings"].items())
    )
    console.print(f"\nin {inert(output)}:")
    for name in (*manifest["outputs"], "manifest.json"):
        console.print(f"  {name}")


def print_version(done: Mapping[str, Any], selection: Selection, output: str) -> None:
    """A new version, and what came and went with it; or that nothing is new."""
    if not done["new"]:
        new_console().print(
            f"Nothing new: the pool and the parameters are those of the version {done['version']}."
        )
        return
    print_summary(done["manifest"], selection, done["uri"])
    changes = done["changes"]
    if changes is not None:
        pool, chosen = changes["pool"], changes["selection"]
        told = (
            f"since {changes['before']}: {pool['added']:,} conversations new in the pool, "
            f"{pool['removed']:,} gone from it; "
        )
        new_console().print(
            f"\n{told}{chosen['added']:,} came into the selection, {chosen['dropped']:,} "
            "went out of it"
        )
    new_console().print(f"\n{inert(output)}/latest points to it")


# ---- preflight


def print_checks(checks: Sequence[Check]) -> None:
    """A table with a column a stage, and the warnings below it."""
    from deita_tasks.preflight import duration

    table = Table(box=None, pad_edge=False)
    table.add_column("", style="dim", no_wrap=True)
    for one in checks:
        table.add_column(one.stage, overflow="fold")
    rows: dict[str, Callable[[Check], str | None]] = {
        "backend": lambda one: one.backend,
        "model": lambda one: one.model,
        "runs": lambda one: " on ".join(filter(None, [one.dtype, one.device])) or None,
        "digit ids": lambda one: (
            None if one.digit_ids is None else " ".join(map(str, one.digit_ids))
        ),
        "window": lambda one: None if one.window is None else f"{one.window:,} tokens",
        "would be cut": lambda one: (
            None
            if one.truncated_rows is None
            else f"{one.truncated_rows:,} of {one.sampled:,} rows ({one.truncated_rows / one.sampled:.1%})"
        ),
        "scores": lambda one: " ".join(f"{score:.2f}" for score in one.scores) or None,
        "rows": lambda one: None if one.rows is None else f"about {one.rows:,}",
        "tokens a row": lambda one: (
            None if one.tokens_a_row is None else f"{one.tokens_a_row:,.0f}"
        ),
        "tokens": lambda one: None if one.tokens is None else f"about {one.tokens:,.0f}",
        "time, at most": lambda one: None if one.seconds is None else duration(one.seconds),
        "of 1,000 rows": lambda one: (
            None if one.seconds_a_row is None else duration(1000 * one.seconds_a_row)
        ),
    }
    for name, of in rows.items():
        told = [of(one) for one in checks]
        if any(told):
            table.add_row(name, *(inert(one or "–") for one in told))
    console = new_console()
    console.print(table)
    for warning in (warning for one in checks for warning in one.warnings):
        console.print(f"\nwarning: {inert(warning)}")


# ---- sweep


def print_sweep(manifest: Mapping[str, Any], output: str) -> None:
    """The table of a sweep, and where its files lie."""
    console = new_console()
    table = Table(box=None, pad_edge=False)
    for name in (
        "strategy",
        "limit",
        "budget",
        "kept",
        "evol score",
        "distance",
        "largest",
        "redundancy",
    ):
        table.add_column(name, justify="left" if name == "strategy" else "right", no_wrap=True)
    rows = manifest["selections"]
    for row, after in zip(rows, [*rows[1:], None], strict=True):
        limit = "" if row["max_similarity"] is None else f"{row['max_similarity']}"
        kept = f"{'only ' if row['kept'] < row['budget'] else ''}{row['kept']:,}"
        shown = (
            (row["mean_evol_score"], 3),
            (row["coverage_mean"], 4),
            (row["coverage_worst"], 4),
            (row["redundancy"], 4),
        )
        numbers = ["–" if value is None else f"{value:.{digits}f}" for value, digits in shown]
        last = after is None or after["budget"] != row["budget"]
        table.add_row(
            row["strategy"],
            limit,
            f"{row['budget']:,}",
            kept,
            *numbers,
            end_section=last,
            style="dim" * (row["strategy"] == "random"),
        )
    console.print(table)
    if any(row["kept"] < row["budget"] for row in rows):
        console.print("\nonly: the pool ran out before the budget")
    sampled = f"{manifest['coverage_rows']:,} of {manifest['candidates']:,} conversations"
    console.print(
        f"\ndistance: of {sampled} to the nearest kept one (1 - cosine), on average and the "
        "largest; less covers more"
    )
    console.print(
        "redundancy: similarity of a kept one to its nearest other, on average; less repeats less"
    )
    console.print(f"\nin {inert(output)}:")
    for name in (*manifest["outputs"], "manifest.json"):
        console.print(f"  {name}")


# ---- solve


def print_solution(solution: Mapping[str, Any], budget: int) -> None:
    """The limit, and how many conversations it yields."""
    kept, limit = solution["kept"], solution["max_similarity"]
    console = new_console()
    pool = f"of the {solution['candidates']:,} distinct conversations that can be chosen"
    if kept < budget:
        console.print(
            f"The pool runs out: even --max-similarity 1 keeps {kept:,} {pool}, and the "
            f"budget is {budget:,}."
        )
        return
    console.print(f"--max-similarity {limit} keeps {kept:,} {pool}: the budget is filled.")
    console.print(
        "There is no smaller limit."
        if limit == -1
        else "The next smaller limit keeps fewer: the pool runs out before the budget."
    )


# ---- explain


def print_explanation(explanation: Explanation, full: bool = False) -> None:
    """Where the row stands, what it scored, what was decided and why, with the texts; cut to
    MOST_CHARACTERS a turn unless `full`.
    """
    console = new_console()
    line = explanation.line
    for name, value in _facts(explanation):
        console.print(Text.assemble((f"{name:<12}", "dim"), inert(value)))
    console.print()
    if explanation.raw is not None:
        console.print(Text(inert(explanation.raw if full else _cut(explanation.raw))))
    if explanation.conversation is not None:
        texts = [(_heading(line), conversation_text(explanation.conversation, full))]
        if explanation.blocker is not None:
            texts.append(
                (
                    _heading(explanation.blocker.line),
                    conversation_text(explanation.blocker.conversation, full),
                )
            )
        _print_texts(console, texts)
    if explanation.blocked:
        console.print("\ntoo similar to it, the most similar first:")
        for other in explanation.blocked:
            words = (
                f"{other.line['similarity']:.4f}  {other.line['id'][:SHORT_ID]}  "
                f"{first_line(other.conversation)}"
            )
            console.print(
                Text(words),
                no_wrap=True,
                overflow="ellipsis" if console.is_terminal else "ignore",
                crop=console.is_terminal,
            )
        if explanation.blocked_rows > len(explanation.blocked):
            console.print(
                f"… and {explanation.blocked_rows - len(explanation.blocked):,} more, by "
                "nearest_id in decisions.parquet"
            )


def _facts(explanation: Explanation) -> Iterator[tuple[str, str]]:
    line = explanation.line
    yield "row", _place(line)
    if explanation.duplicates:
        yield (
            "repeated in",
            ", ".join(map(_place, explanation.duplicates[:10]))
            + (", …" if len(explanation.duplicates) > 10 else ""),
        )
    if line["id"]:
        yield "id", line["id"]
    yield "decision", _decision(explanation)
    for kind in ("complexity", "quality"):
        if line[kind]:
            yield (
                kind,
                "  ".join(f"{score:.2f}" for score in line[kind])
                + ("  (by user turn)" if len(line[kind]) > 1 else ""),
            )
    if line["evol_score"] is not None:
        yield "evol score", f"{line['evol_score']:.3f}"
    if line["rank"] is not None:
        yield "rank", f"{line['rank']:,} of {explanation.ranked:,}"
    if line["truncated"]:
        yield "cut", "longer than a model's window; the model read a part of it"


def _place(line: Line) -> str:
    return f"{line['source_uri']}:{line['source_row']}"


def _decision(explanation: Explanation) -> str:
    """The decision and its reason in a sentence."""
    line, selector = explanation.line, explanation.selector
    decision = line["decision"].replace("_", " ")
    if explanation.blocker is not None:
        measure, side, limit = "similarity", "over", selector.get("max_similarity")
        if selector.get("min_distance") is not None:
            measure, side, limit = "distance", "under", selector["min_distance"]
        near, kept = line["similarity"], explanation.blocker.line
        told_apart = limit is None or (
            round(near, 4) > limit if side == "over" else round(near, 4) < limit
        )
        shown = f"{near:.4f}" if told_apart else f"{near:.8f}"
        bound = "" if limit is None else f", {side} the limit of {limit}"
        return (
            f"{decision}: {measure} {shown} to {kept['id'][:SHORT_ID]}, kept at rank "
            f"{kept['rank']:,}{bound}"
        )
    if line["decision"] == "below_budget":
        return f"{decision}: never reached, as the budget of {selector['budget']:,} was full before"
    if line["decision"] == "selected":
        return (
            f"{decision}; {explanation.blocked_rows:,} "
            f"{'row was' if explanation.blocked_rows == 1 else 'rows were'} too similar to it"
        )
    return f"{decision}: {line['reason']}"


def _heading(line: Line) -> str:
    facts = (
        ""
        if line["rank"] is None
        else f", rank {line['rank']:,}, evol score {line['evol_score']:.3f}"
    )
    verdict = {"selected": "kept", "too_similar": "rejected"}.get(
        line["decision"], line["decision"].replace("_", " ")
    )
    return f"{verdict}: {line['id'][:SHORT_ID]}{facts}"


def conversation_text(conversation: Conversation, full: bool) -> Text:
    """The turns one after another, each under its role."""
    pieces: list[Any] = []
    for turn in conversation.turns:
        pieces += [
            (f"{turn.role}\n", "bold"),
            inert(turn.content if full else _cut(turn.content)).rstrip("\n"),
            "\n\n",
        ]
    return Text.assemble(*pieces[:-1])


def _cut(text: str) -> str:
    left = len(text) - MOST_CHARACTERS
    return text if left <= 0 else f"{text[:MOST_CHARACTERS]} … {left:,} more characters (--full)"


def first_line(conversation: Conversation) -> str:
    """The first line of the first user turn."""
    asked = next(
        (turn.content for turn in conversation.turns if turn.role == "user"),
        conversation.turns[0].content,
    )
    return inert(next((line.strip() for line in asked.split("\n") if line.strip()), ""))


def _print_texts(console: Console, texts: Sequence[tuple[str, Text]]) -> None:
    """Side by side in a terminal, one after the other elsewhere."""
    if not console.is_terminal or len(texts) == 1:
        for heading, text in texts:
            console.print(Text.assemble((f"--- {heading}", "dim")))
            console.print(text, end="\n\n" if text is not texts[-1][1] else "\n")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), expand=True)
    for heading, _ in texts:
        table.add_column(Text(heading), ratio=1, overflow="fold")
    table.add_row(*(text for _, text in texts))
    console.print(table)
