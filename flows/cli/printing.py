"""What the commands print: tables in a terminal, plain lines elsewhere.

No text of the pool can act on either.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from deita_tasks.addresses import without_password
from deita_tasks.terminal import SafeConsole, escape
from flows.cli import seconds_since_start

if TYPE_CHECKING:
    from deita_tasks.config import Selection
    from deita_tasks.conversations import Conversation
    from deita_tasks.decisions import LedgerRow
    from deita_tasks.evolving.result import ScorerEstimate, TrainedScorer
    from deita_tasks.findings import Findings
    from deita_tasks.manifest import Counts
    from deita_tasks.preflight import Check
    from deita_tasks.results.alignment import AlignedModel
    from deita_tasks.results.comparison import ComparedModels
    from deita_tasks.results.explain import Explanation, TextMatches
    from deita_tasks.results.record_check import NearestRow, RecordCheck
    from deita_tasks.results.records import LimitSolution, Subset, SubsetVersion, Sweep

MAX_TURN_CHARACTERS = 1_500
SHORT_ID = 12
MAX_VANISHED = 5  # values named in the summary
BY_SCORE = {"Diverse", "TopScore", "SemDedup"}  # strategies that go from the best score down
PLAIN_WIDTH = 120  # of a table without a terminal
LONG_LINE = 10_000  # of a table whose cells are paths and sentences

DECISION_NOTES = {
    "selected": "",
    "too_similar": "to a selected row with a better score",
    "below_budget": "not reached before the selection ended",
    "stratum_full": "its stratum had all the rows that it gets",
    "duplicate": "same conversation as an earlier row",
    "quarantined": "unreadable; decisions.parquet has each reason",
    "unscorable": "no score, vector or token count; decisions.parquet has each reason",
    "contaminated": "repeats an evaluation text; excluded.parquet has both",
    "too_long": "its answers lie beyond the training window",
}


def safe(text: str) -> str:
    """Return a text of any origin, without passwords, so that it cannot act on a terminal."""
    return escape(without_password(text))


def guard_log() -> None:
    """Make the message of every log record of this process safe, also of libraries."""
    logging.setLogRecordFactory(_safe_record)


def _safe_record(*arguments: Any, **options: Any) -> logging.LogRecord:
    record = logging.LogRecord(*arguments, **options)
    with suppress(Exception):  # arguments that do not fit: logging reports it when it prints
        record.msg, record.args = safe(record.getMessage()), None
    return record


def new_console() -> Console:
    """Return a console on standard output. Without a terminal it breaks no line."""
    if hasattr(sys.stdout, "reconfigure"):
        # Texts have letters that the terminal's encoding may lack.
        sys.stdout.reconfigure(errors="backslashreplace")
    console = SafeConsole()
    if not console.is_terminal:
        console.soft_wrap = True
        console.width = max(console.width, PLAIN_WIDTH)
    return console


def _print_files(console: Console, output: str, files: Sequence[str]) -> None:
    console.print(f"\nin {output}:")
    for name in (*files, "manifest.json"):
        console.print(f"  {name}")


def print_time(timings: Mapping[str, float] | None = None) -> None:
    """Print the seconds since the command started, and those of the stages of its run."""
    total = seconds_since_start()
    stages = dict(timings or {})
    if stages:
        stages["start and export"] = total - sum(stages.values())
    parts = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in stages.items())
    new_console().print(f"\n{total:.1f} s{': ' if parts else ''}{parts}")


# ---- select


def print_summary(subset: Subset | Mapping[str, Any], selection: Selection, output: str) -> None:
    """Print what was read, computed, reused, selected and rejected, and where the files are."""
    from deita_tasks.findings import Findings
    from deita_tasks.manifest import Counts

    counts = subset["counts"]
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("read", f"{counts['read']:,}", "rows")
    for decision, note in DECISION_NOTES.items():
        if counts.get(decision) or decision == "selected":
            table.add_row(decision.replace("_", " "), f"{counts[decision]:,}", note)
    if left_out := subset["left_out"]:
        table.add_row("left out", f"{left_out:,}", "selected, but without an answer at the end")
    for stage in subset["tasks"]:
        _add_stage(table, subset, stage)
    console = new_console()
    console.print(table)
    if "findings" in subset:
        _print_findings(console, Findings.model_validate(subset["findings"]), counts)
    _print_filters(console, subset)
    _print_shortfall(console, Counts(**counts), selection)
    _print_files(console, output, list(subset["outputs"]))


def _print_filters(console: Console, subset: Subset | Mapping[str, Any]) -> None:
    """Print how many tokens are selected, and what the filters could not do."""
    from deita_tasks.manifest import TokenUse

    lines = [f"WARNING: {note}" for note in subset["notes"]]
    if subset["tokens"]:
        lines += TokenUse.model_validate(subset["tokens"]).sentences()
    for line in lines:
        console.print(Text(f"\n{safe(line)}"))


def _print_shortfall(console: Console, counts: Counts, selection: Selection) -> None:
    from deita_tasks.artifacts.selection import is_short, shortfall

    if is_short(counts, selection):
        console.print(f"\n{shortfall(counts, selection)}")


def _print_findings(console: Console, findings: Findings, counts: Mapping[str, int]) -> None:
    from deita_tasks.findings import describe_vanished, plural

    notes = findings.sentences(counts)
    notes += [f"WARNING: {describe_vanished(value)}" for value in findings.vanished[:MAX_VANISHED]]
    if notes:
        console.print()
    for note in notes:
        console.print(Text(safe(note)))
    hidden = len(findings.vanished) - MAX_VANISHED
    if hidden > 0:
        console.print(f"and {plural(hidden, 'more such value')}; report.html shows them all")


def _add_stage(table: Table, subset: Subset | Mapping[str, Any], stage: str) -> None:
    tasks = subset["tasks"][stage]
    reused = subset["reused"][stage]
    truncated = subset["truncated"][stage]
    skipped = subset["skipped"][stage]
    not_needed = f", {skipped:,} not needed" if skipped else ""
    note = (
        f"rows computed, {reused:,} taken from the store{not_needed} "
        f"({tasks['run']} tasks run, {tasks['cached']} Cached)"
    )
    table.add_row(stage, f"{subset['computed'][stage]:,}", note)
    if truncated:
        effect = "part of each was left out"
        if stage == "embedding":
            effect = "it read their beginning"
        note = f"rows were longer than the model's window; {effect}"
        table.add_row("", f"{truncated:,}", note)


def print_version(version: SubsetVersion, selection: Selection, output: str) -> None:
    """Print a new version and its changes, that nothing is new, or that it was refused."""
    if version.refused:
        new_console().print(
            f"Version {version.version} was refused, or latest was moved back from it; "
            f"{output}/latest stays. `deita versions use {version.version} --output {output}` "
            "publishes it."
        )
        return
    if version.subset is None:
        new_console().print(
            f"Nothing new: version {version.version} has this pool and these parameters."
        )
        return
    print_summary(version.subset, selection, version.uri)
    if version.changes is not None:
        changes: Any = version.changes
        pool = changes["pool"]
        selected = changes["selection"]
        new_console().print(
            f"\nsince {changes['before']}: {pool['added']:,} conversations added to the pool, "
            f"{pool['removed']:,} removed; {selected['added']:,} joined the selection, "
            f"{selected['dropped']:,} left it"
        )
        from deita_tasks.reporting.drift import describe_drift
        from deita_tasks.reporting.settings import describe_settings

        lines = [*describe_settings(changes["settings"]), *describe_drift(changes["drift"])]
        for line in lines:
            new_console().print(f"  {line}")
    new_console().print(f"\n{output}/latest points to it")


# ---- preflight


def print_checks(checks: Sequence[Check], lengths: Sequence[str] = ()) -> None:
    """Print a table with a column for each stage, the lengths of rows, and the warnings below."""
    table = Table(box=None, pad_edge=False)
    table.add_column("", style="dim", no_wrap=True)
    for check in checks:
        table.add_column(check.stage, overflow="fold")
    for name, describe in CHECK_ROWS.items():
        cells = [describe(check) for check in checks]
        if any(cells):
            table.add_row(name, *(cell or "–" for cell in cells))
    console = new_console()
    console.print(table)
    console.print(
        "\nTokens and times are those of every row. `deita select` computes only what can change "
        "the selection, unless evaluation is all or the strategy looks at every row."
    )
    for line in lengths:
        console.print(f"\n{line}")
    for check in checks:
        for warning in check.warnings:
            console.print(f"\nwarning: {warning}")


def _describe_truncated(check: Check) -> str | None:
    if check.truncated_rows is None:
        return None
    share = check.truncated_rows / check.sampled
    return f"{check.truncated_rows:,} of {check.sampled:,} rows ({share:.1%})"


def _describe_windows(check: Check) -> str | None:
    if not check.windowed_rows:
        return None
    return f"{check.windows_a_row:.1f} a row over the window ({check.windowed_rows:,} rows)"


def _describe_digits(check: Check) -> str | None:
    return None if check.digit_ids is None else " ".join(map(str, check.digit_ids))


def _describe_time(seconds: float | None) -> str | None:
    from deita_tasks.progress import duration

    return None if seconds is None else duration(seconds)


def _number(value: float | None, form: str) -> str | None:
    return None if value is None else form.format(value)


CHECK_ROWS: dict[str, Callable[[Any], str | None]] = {
    "backend": lambda check: check.backend,
    "model": lambda check: check.model,
    "runs": lambda check: " on ".join(filter(None, [check.dtype, check.device])) or None,
    "digit ids": _describe_digits,
    "window": lambda check: _number(check.window, "{:,} tokens"),
    "windows": _describe_windows,
    "truncated": _describe_truncated,
    "scores": lambda check: " ".join(f"{score:.2f}" for score in check.scores) or None,
    "rows": lambda check: _number(check.rows, "about {:,}"),
    "tokens a row": lambda check: _number(check.tokens_a_row, "{:,.0f}"),
    "tokens": lambda check: _number(check.tokens, "about {:,.0f}"),
    "time, at most": lambda check: _describe_time(check.seconds),
    "of 1,000 rows": lambda check: _describe_time(
        None if check.seconds_a_row is None else 1000 * check.seconds_a_row
    ),
}


# ---- sweep

SWEEP_COLUMNS = (
    "strategy",
    "limit",
    "budget",
    "selected",
    "evol score",
    "distance",
    "largest",
    "redundancy",
)


def print_sweep(sweep: Sweep | Mapping[str, Any], output: str) -> None:
    """Print the table of a sweep, and where its files are."""
    console = new_console()
    table = Table(box=None, pad_edge=False)
    for name in SWEEP_COLUMNS:
        justify: Any = "left" if name == "strategy" else "right"
        table.add_column(name, justify=justify, no_wrap=True)
    rows = sweep["selections"]
    for row, next_row in zip(rows, [*rows[1:], None], strict=True):
        is_last = next_row is None or next_row["budget"] != row["budget"]
        style = "dim" if row["strategy"] == "random" else ""
        table.add_row(*_sweep_cells(row), end_section=is_last, style=style)
    console.print(table)
    if any(row["kept"] < row["budget"] for row in rows):
        console.print("\nonly: the pool ran out before the budget")
    sample = f"{sweep['coverage_rows']:,} of {sweep['candidates']:,} conversations"
    console.print(
        f"\ndistance: from {sample} to the nearest selected one (1 - cosine), mean and largest; "
        "lower covers more"
    )
    console.print(
        "redundancy: mean similarity of a selected conversation to its nearest other; lower "
        "repeats less"
    )
    _print_files(console, output, list(sweep["outputs"]))


def _sweep_cells(row: Mapping[str, Any]) -> list[str]:
    limit = "" if row["max_similarity"] is None else f"{row['max_similarity']}"
    only = "only " if row["kept"] < row["budget"] else ""
    measures = [
        (row["mean_evol_score"], 3),
        (row["coverage_mean"], 4),
        (row["coverage_worst"], 4),
        (row["redundancy"], 4),
    ]
    numbers = ["–" if value is None else f"{value:.{digits}f}" for value, digits in measures]
    return [row["strategy"], limit, f"{row['budget']:,}", f"{only}{row['kept']:,}", *numbers]


# ---- align


def print_aligned(aligned: AlignedModel, output: str) -> None:
    """Print what was trained, and where the model is."""
    console = new_console()
    for stage in aligned.manifest.stages:
        if stage.survey is not None:
            for line in stage.survey.sentences():
                console.print(Text(safe(line)))
        losses = ""
        if stage.first_loss is not None and stage.last_loss is not None:
            losses = f", loss {stage.first_loss:.4f} to {stage.last_loss:.4f}"
        console.print(f"{stage.stage}: {stage.updates:,} updates{losses}")
    for remedy in aligned.manifest.remedies:
        console.print(Text(safe(remedy)))
    _print_files(console, output, list(aligned.manifest.outputs))


# ---- compare


def print_comparison(compared: ComparedModels, output: str) -> None:
    """Print what can be said, the table behind it, and where the files are."""
    console = new_console()
    table = Table(box=None, pad_edge=False)
    for name in ("measure", "group", "mean", "selection minus group", "95% interval"):
        justify: Any = "left" if name in ("measure", "group") else "right"
        table.add_column(name, justify=justify, no_wrap=True)
    for result in compared.measures:
        differences = {contrast.group: contrast for contrast in result.contrasts}
        for group in result.groups:
            contrast = differences.get(group.group)
            cells = ["", ""]
            if contrast is not None:
                cells = [
                    f"{contrast.difference:+.4f}",
                    f"{contrast.low:+.4f} to {contrast.high:+.4f}",
                ]
            table.add_row(result.label, group.group, f"{group.mean:.4f}", *cells)
    console.print(table)
    manifest = compared.manifest
    for kind, count in manifest.removed.items():
        if count:
            console.print(f"{count:,} {kind} were removed: their prompts stand in an arm")
    for line in (manifest.sentence, *manifest.notes):
        console.print(Text(f"\n{safe(line)}"))
    _print_files(console, output, list(manifest.outputs))


# ---- train-scorer


def print_scorer(scorer: TrainedScorer | ScorerEstimate, output: str) -> None:
    """Print how well a scorer agrees with the judge, and where its files are; or an estimate."""
    from deita_tasks.evolving.result import ScorerEstimate

    console = new_console()
    if isinstance(scorer, ScorerEstimate):
        for line in scorer.sentences():
            console.print(Text(safe(line)))
        console.print("nothing was asked for: a dry run")
        return
    manifest = scorer.manifest
    table = Table(box=None, pad_edge=False)
    for name in ("rank correlation of", "texts", "over all texts", "within a chain"):
        table.add_column(name, justify="left" if name.endswith("of") else "right", no_wrap=True)
    figures = manifest.figures
    for agreement in (*figures.held_out, *figures.labelled):
        numbers = (agreement.across, agreement.within)
        cells = [_number(value, "{:.3f}") for value in numbers]
        table.add_row(escape(agreement.name), f"{agreement.texts:,}", *cells)
    console.print(table)
    usage = [str(role) for role in manifest.usage]
    for line in (*manifest.chains.sentences(), *usage, *manifest.remedies, figures.sentence):
        console.print(Text(safe(line)))
    _print_files(console, output, list(manifest.outputs))


# ---- solve


def print_solution(solution: LimitSolution | Mapping[str, Any], budget: int) -> None:
    """Print the limit, and how many conversations it selects."""
    kept = solution["kept"]
    limit = solution["max_similarity"]
    pool = f"of the {solution['candidates']:,} distinct conversations with scores and a vector"
    console = new_console()
    if kept < budget:
        console.print(
            f"The pool runs out: even --max-similarity 1 selects {kept:,} {pool}, and the budget "
            f"is {budget:,}."
        )
        return
    console.print(f"--max-similarity {limit} selects {kept:,} {pool}: the budget is filled.")
    note = "The next smaller limit selects fewer: the pool runs out before the budget."
    if limit == -1:
        note = "There is no smaller limit."
    console.print(note)


# ---- explain


def print_explanation(explanation: Explanation, full: bool = False) -> None:
    """Print a row's place, scores, decision and reason, with the texts.

    Turns are shortened to MAX_TURN_CHARACTERS unless `full`.
    """
    console = new_console()
    for name, value in _explanation_facts(explanation):
        label = f"{name:<11} "  # a long name is set apart too
        console.print(Text.assemble((label, "dim"), escape(value)))
    console.print()
    if explanation.raw is not None:
        console.print(Text(escape(explanation.raw if full else _shorten(explanation.raw))))
    if explanation.conversation is not None:
        texts = [(_heading(explanation.row), conversation_text(explanation.conversation, full))]
        blocker = explanation.blocker
        if blocker is not None:
            texts.append((_heading(blocker.row), conversation_text(blocker.conversation, full)))
        repeated = explanation.repeated
        if repeated is not None:
            text = repeated.text if full else _shorten(repeated.text)
            texts.append((f"evaluation: {repeated.place}", Text(escape(text))))
        _print_texts(console, texts)
    if explanation.blocked:
        _print_blocked(console, explanation)


def print_matches(matches: TextMatches) -> None:
    """Print the rows that hold a piece of text: ids, decisions and how they begin."""
    console = new_console()
    overflow: Any = "ellipsis" if console.is_terminal else "ignore"
    console.print(f"{matches.total:,} conversations hold this text; explain one by its id:")
    for match in matches.rows:
        decision = match.row.decision.replace("_", " ")
        line = f"{_short_id(match.row)}  {decision:<12}  {first_line(match.conversation)}"
        console.print(Text(line), no_wrap=True, overflow=overflow, crop=console.is_terminal)
    hidden = matches.total - len(matches.rows)
    if hidden > 0:
        console.print(f"… and {hidden:,} more; a longer piece of text finds fewer")


# ---- check


def print_record_checks(checks: Sequence[RecordCheck], as_json: bool) -> None:
    """Print what a selection would make of records: facts of one, a table of several."""
    console = new_console()
    if as_json:
        for check in checks:
            sys.stdout.write(json.dumps(check.to_dict(), ensure_ascii=True) + "\n")
    elif len(checks) == 1:
        for name, value in _check_facts(checks[0]):
            console.print(Text.assemble((f"{name:<12}", "dim"), escape(value)))
    else:
        _print_check_table(console, checks)


def _check_facts(check: RecordCheck) -> Iterator[tuple[str, str]]:
    read_as = "" if check.format is None else f", read as {check.format}"
    yield "record", check.record + read_as
    if check.id:
        yield "id", check.id
    decision = (check.decision or "unknown").replace("_", " ")
    yield "decision", f"{decision}: {check.reason}"
    yield from _score_facts(check.complexity, check.quality)
    if check.evol_score is not None:
        yield "evol score", f"{check.evol_score:.3f}"
    if check.rank is not None:
        yield "rank", _describe_ranks(check)
    if check.truncated:
        yield "truncated", "longer than a model's window; the model read part of it"
    if check.nearest is not None:
        yield "nearest", _describe_nearest(check.nearest)
    for sentence in check.consequences():
        yield "others", sentence


def _describe_ranks(check: RecordCheck) -> str:
    of = "" if check.ranked is None else f" of {check.ranked:,}"
    if check.last_rank in (None, check.rank):
        return f"{check.rank:,}{of}"
    return f"between {check.rank:,} and {check.last_rank:,}{of}: rows in between have no scores"


def _describe_nearest(nearest: NearestRow) -> str:
    side = "before" if nearest.is_before else "after"
    row = nearest.row
    return f"{row.place} ({row.id[:SHORT_ID]}) by {nearest.similarity:.4f}, which comes {side} it"


def _print_check_table(console: Console, checks: Sequence[RecordCheck]) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("record", "decision", "evol score", "rank", "nearest", "leave", "reason"):
        is_number = name in ("evol score", "rank", "nearest", "leave")
        table.add_column(name, justify="right" if is_number else "left", no_wrap=is_number)
    if not console.is_terminal:  # a line for each record
        console.width = LONG_LINE
    for check in checks:
        table.add_row(
            escape(check.record),
            (check.decision or "unknown").replace("_", " "),
            _number(check.evol_score, "{:.3f}"),
            _number(check.rank, "{:,}"),
            _number(check.nearest.similarity if check.nearest else None, "{:.4f}"),
            f"{len(check.leaving):,}" if check.decision == "selected" else None,
            escape(check.reason),
        )
    console.print(table)


def _print_blocked(console: Console, explanation: Explanation) -> None:
    console.print("\ntoo similar to it, most similar first:")
    overflow: Any = "ellipsis" if console.is_terminal else "ignore"
    for blocked in explanation.blocked:
        row = blocked.row
        line = f"{row.similarity:.4f}  {_short_id(row)}  {first_line(blocked.conversation)}"
        console.print(Text(line), no_wrap=True, overflow=overflow, crop=console.is_terminal)
    hidden = explanation.blocked_rows - len(explanation.blocked)
    if hidden > 0:
        console.print(f"… and {hidden:,} more, by nearest_id in decisions.parquet")


def _explanation_facts(explanation: Explanation) -> Iterator[tuple[str, str]]:
    row = explanation.row
    yield "row", row.place
    if explanation.duplicates:
        places = [duplicate.place for duplicate in explanation.duplicates[:10]]
        more = ", …" if len(explanation.duplicates) > 10 else ""
        yield "repeated in", ", ".join(places) + more
    if row.id:
        yield "id", row.id
    if row.cut_turns:
        yield "cut", describe_cut(row.cut_turns, row.whole_id)
    yield "decision", _decision_sentence(explanation)
    yield from _score_facts(row.complexity, row.quality)
    for score in row.scores or ():
        yield score["name"], "  ".join(f"{value:.4g}" for value in score["values"])
    if row.evol_score is not None:
        yield score_name(explanation.selector), f"{row.evol_score:.3f}"
    elif row.evol_lower is not None and row.evol_upper is not None:
        bounds = f"between {row.evol_lower:.3f} and {row.evol_upper:.3f}"
        missing = [kind for kind in ("complexity", "quality") if getattr(row, kind) is None]
        not_computed = f"{' and '.join(missing)} not computed: no value could change the selection"
        yield "evol score", f"{bounds}; {not_computed}"
    for sentence in explanation.how_far:
        yield "how far", sentence
    if row.rank is not None:
        yield "rank", f"{row.rank:,} of {explanation.ranked:,}"
    if row.stratum is not None:
        yield "stratum", row.stratum
    if row.truncated:
        yield "truncated", "longer than a model's window; the model read part of it"


def describe_cut(turns: int, whole_id: str | None) -> str:
    """Return what a row has lost to fit the window of the training."""
    lost = "its last turn was" if turns == 1 else f"its last {turns:,} turns were"
    return f"{lost} left out to fit the training window; with them, its id is {whole_id}"


def score_name(selector: Mapping[str, Any]) -> str:
    """Return what the strategy with this fingerprint ranks by."""
    return str(selector.get("rank_by", "evol score"))


def _score_facts(
    complexity: Sequence[float] | None, quality: Sequence[float] | None
) -> Iterator[tuple[str, str]]:
    for kind, scores in (("complexity", complexity), ("quality", quality)):
        if scores:
            by_turn = "  (by user turn)" if len(scores) > 1 else ""
            yield kind, "  ".join(f"{score:.2f}" for score in scores) + by_turn


def _decision_sentence(explanation: Explanation) -> str:
    row = explanation.row
    decision = row.decision.replace("_", " ")
    if explanation.blocker is not None:
        return f"{decision}: {_similarity_sentence(explanation, explanation.blocker.row)}"
    if row.decision in ("below_budget", "stratum_full"):
        budget = explanation.selector["budget"]
        reason = row.reason or f"not reached, the budget of {budget:,} was full before"
        return f"{decision}: {reason}" + _compare_with_last(explanation)
    if row.decision == "selected":
        count = explanation.blocked_rows
        rows = "row was" if count == 1 else "rows were"
        return f"{decision}; {count:,} {rows} too similar to it"
    return f"{decision}: {row.reason}"


def _compare_with_last(explanation: Explanation) -> str:
    """Return what a row lacks to come before the last one selected, if scores decided that."""
    row, last = explanation.row, explanation.last_selected
    selector = explanation.selector
    by_evol_score = selector.get("ranking") == "evol" and selector.get("strategy") in BY_SCORE
    if last is None or last.evol_score is None or row.evol_upper is None or not by_evol_score:
        return ""
    if row.evol_upper > last.evol_score:
        return ""
    score = "is" if row.evol_score is not None else "is at most"
    group = " of its stratum" if row.decision == "stratum_full" else ""
    return (
        f"; its {score_name(selector)} {score} {row.evol_upper:.2f}, the last one "
        f"selected{group} has {last.evol_score:.2f}"
    )


def _similarity_sentence(explanation: Explanation, blocker: LedgerRow) -> str:
    """Return "similarity 0.9500 to <id>, selected at rank 1, over the limit of 0.9"."""
    selector = explanation.selector
    measure, side, limit = "similarity", "over", selector.get("max_similarity")
    if selector.get("min_distance") is not None:
        measure, side, limit = "distance", "under", selector["min_distance"]
    value = explanation.row.similarity or 0.0
    rounded = round(value, 4)
    is_beyond = limit is None or (rounded > limit if side == "over" else rounded < limit)
    # Four digits, unless rounding would hide that it is beyond the limit.
    shown = f"{value:.4f}" if is_beyond else f"{value:.8f}"
    bound = "" if limit is None else f", {side} the limit of {limit}"
    rank = "" if blocker.rank is None else f" at rank {blocker.rank:,}"
    return f"{measure} {shown} to {_short_id(blocker)}, selected{rank}{bound}"


def _short_id(row: LedgerRow) -> str:
    return (row.id or "")[:SHORT_ID]


def _heading(row: LedgerRow) -> str:
    facts = ""
    if row.rank is not None:
        facts = f", rank {row.rank:,}, evol score {row.evol_score:.3f}"
    verdict = row.decision.replace("_", " ")
    if row.decision == "too_similar":
        verdict = "rejected"
    return f"{verdict}: {_short_id(row)}{facts}"


def conversation_text(conversation: Conversation, full: bool) -> Text:
    """Return the turns one after another, each under its role."""
    pieces: list[Any] = []
    for turn in conversation.turns:
        content = turn.content if full else _shorten(turn.content)
        pieces += [(f"{turn.role}\n", "bold"), escape(content).rstrip("\n"), "\n\n"]
    return Text.assemble(*pieces[:-1])


def _shorten(text: str) -> str:
    hidden = len(text) - MAX_TURN_CHARACTERS
    if hidden <= 0:
        return text
    return f"{text[:MAX_TURN_CHARACTERS]} … {hidden:,} more characters (--full)"


def first_line(conversation: Conversation) -> str:
    """Return the first line of the first user turn."""
    user_turns = [turn.content for turn in conversation.turns if turn.role == "user"]
    text = user_turns[0] if user_turns else conversation.turns[0].content
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    return escape(lines[0]) if lines else ""


def _print_texts(console: Console, texts: Sequence[tuple[str, Text]]) -> None:
    """Print texts side by side in a terminal, one after the other elsewhere."""
    if not console.is_terminal or len(texts) == 1:
        for number, (heading, text) in enumerate(texts, start=1):
            console.print(Text.assemble((f"--- {heading}", "dim")))
            console.print(text, end="\n\n" if number < len(texts) else "\n")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), expand=True)
    for heading, _ in texts:
        table.add_column(Text(heading), ratio=1, overflow="fold")
    table.add_row(*(text for _, text in texts))
    console.print(table)
