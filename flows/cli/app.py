"""`deita`: one command for each flow, and the small tools."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Annotated, Any, NoReturn

from cyclopts import App, CycloptsError, Parameter
from pydantic import ValidationError

from deita_tasks import config
from deita_tasks.errors import DeitaError, UsageError
from deita_tasks.validation import explain_error
from flows.cli import INTERRUPTED
from flows.cli.explore import explore
from flows.cli.options import (
    COMMON_OPTIONS,
    HELP_ALL,
    Advanced,
    BriefHelp,
    Budget,
    Comparison,
    Embedding,
    Export,
    Filtering,
    Grid,
    Judging,
    Measures,
    Output,
    Preferences,
    Requests,
    Rewriting,
    Run,
    RunOptions,
    Runtime,
    ScorerMeasures,
    ScorerTraining,
    Scoring,
    SeedSource,
    Selection,
    Source,
    Training,
    TrainingData,
    TrainingRun,
    TrainingRunOptions,
    Versions,
    apply_config,
    check_options,
    describe_error,
)
from flows.cli.printing import (
    guard_log,
    print_aligned,
    print_checks,
    print_comparison,
    print_explanation,
    print_matches,
    print_record_checks,
    print_scorer,
    print_solution,
    print_summary,
    print_sweep,
    print_time,
    print_version,
    safe,
)
from flows.cli.server import start_server
from flows.cli.store import app as store_app
from flows.cli.versions import app as versions_app

app = App(
    name="deita",
    help="Select the few conversations of an instruction pool that are worth fine-tuning on "
    "(DEITA).",
    help_epilogue=f"`{HELP_ALL}` shows every option. "
    "Exit status: 0 success; 2 an error you can fix on the command line; 1 any other failure; "
    "130 interrupted.",
    help_flags=["--help", "-h"],
    version=metadata.version("deita-tasks"),
    # Of an option given twice the last counts, so that a script's or an alias's can be overridden.
    default_parameter=Parameter(allow_repeating=True),
    config=apply_config,
    suppress_keyboard_interrupt=False,
)
app.command(store_app)
app.command(versions_app)
app.command(explore)
app.register_install_completion_command()


def get_ready(
    run: RunOptions,
    source: config.Source,
    scoring: config.Scoring,
    embedding: config.Embedding,
    selection: config.Selection,
    export: config.Output | config.Versions | None,
    advanced: config.Advanced,
    filtering: config.Filtering,
) -> None:
    """Start a server, and check the parameters while it starts.

    The flow checks them again: a run from the UI has no command before it.
    """
    quiet_prefect(run.verbose)
    wait = start_server(needs_blocks=scoring.api_key_block is not None)
    from deita_tasks.plan import plan_run

    plan_run(source, run.preset, scoring, embedding, selection, export, advanced, filtering)
    import deita_tasks.tasks  # noqa: F401 - takes seconds, as the server does

    wait()


@app.command
def select(
    *,
    source: Source,
    export: Export,
    run: Run = RunOptions(),  # noqa: B008 - immutable, as all groups are
    scoring: Scoring = config.Scoring(),  # noqa: B008
    embedding: Embedding = config.Embedding(),  # noqa: B008
    filtering: Filtering = config.Filtering(),  # noqa: B008
    selection: Selection = config.Selection(),  # noqa: B008
    advanced: Advanced = config.Advanced(),  # noqa: B008
) -> None:
    """Select the conversations of a pool that are worth fine-tuning on."""
    get_ready(run, source, scoring, embedding, selection, export, advanced, filtering)
    from flows.select import select_subset

    subset = select_subset(
        source=source,
        export=export,
        preset=run.preset,
        scoring=scoring,
        embedding=embedding,
        filtering=filtering,
        selection=selection,
        advanced=advanced,
    )
    print_summary(subset, selection, subset.uri)
    print_time(subset["timings"])


@app.command
def reselect(
    *,
    source: Source,
    export: Versions,
    run: Run = RunOptions(),  # noqa: B008
    scoring: Scoring = config.Scoring(),  # noqa: B008
    embedding: Embedding = config.Embedding(),  # noqa: B008
    filtering: Filtering = config.Filtering(),  # noqa: B008
    selection: Selection = config.Selection(),  # noqa: B008
    advanced: Advanced = config.Advanced(),  # noqa: B008
) -> None:
    """Select again from a pool that may have grown, as a new version beside the earlier ones."""
    get_ready(run, source, scoring, embedding, selection, export, advanced, filtering)
    from flows.reselect import reselect_subset

    version: Any = reselect_subset(
        source=source,
        export=export,
        preset=run.preset,
        scoring=scoring,
        embedding=embedding,
        filtering=filtering,
        selection=selection,
        advanced=advanced,
    )
    print_version(version, selection, export.output)
    print_time(version.subset["timings"] if version.subset else {})


@app.command
def sweep(
    *,
    source: Source,
    output: Output,
    run: Run = RunOptions(),  # noqa: B008
    scoring: Scoring = config.Scoring(),  # noqa: B008
    embedding: Embedding = config.Embedding(),  # noqa: B008
    filtering: Filtering = config.Filtering(),  # noqa: B008
    grid: Grid = config.Grid(),  # noqa: B008
    advanced: Advanced = config.Advanced(),  # noqa: B008
) -> None:
    """Compare selections: strategies, limits and budgets, with random ones as the control."""
    selection = config.Selection(rank_by=grid.rank_by)
    get_ready(run, source, scoring, embedding, selection, output, advanced, filtering)
    from flows.sweep import sweep_selections

    result = sweep_selections(
        source=source,
        output=output,
        preset=run.preset,
        scoring=scoring,
        embedding=embedding,
        filtering=filtering,
        grid=grid,
        advanced=advanced,
    )
    print_sweep(result, result.uri)
    print_time()


@app.command
def solve(
    *,
    source: Source,
    run: Run = RunOptions(),  # noqa: B008
    scoring: Scoring = config.Scoring(),  # noqa: B008
    embedding: Embedding = config.Embedding(),  # noqa: B008
    filtering: Filtering = config.Filtering(),  # noqa: B008
    budget: Budget = config.Budget(),  # noqa: B008
    advanced: Advanced = config.Advanced(),  # noqa: B008
) -> None:
    """Find the smallest --max-similarity, so the most diverse selection, that fills a budget."""
    selection = config.Selection(rank_by=budget.rank_by)
    get_ready(run, source, scoring, embedding, selection, None, advanced, filtering)
    from flows.solve import solve_for_budget

    solution = solve_for_budget(
        source=source,
        preset=run.preset,
        scoring=scoring,
        embedding=embedding,
        filtering=filtering,
        budget=budget,
        advanced=advanced,
    )
    print_solution(solution, budget.budget)
    print_time()


@app.command
def align(
    *,
    source: TrainingData,
    training: Training,
    output: Output,
    run: TrainingRun = TrainingRunOptions(),  # noqa: B008
    preferences: Preferences = config.Preferences(),  # noqa: B008
    advanced: Runtime = config.Runtime(),  # noqa: B008
) -> None:
    """Train a model on a selection by SFT, and on preference pairs by DPO."""
    get_ready_to_train("align", run)
    from flows.align import align_model

    aligned = align_model(
        source=source, training=training, output=output, preferences=preferences, advanced=advanced
    )
    print_aligned(aligned, aligned.uri)
    print_time()


@app.command
def compare(
    *,
    comparison: Comparison,
    training: Training,
    output: Output,
    measures: Measures = config.Measures(),  # noqa: B008
    run: TrainingRun = TrainingRunOptions(),  # noqa: B008
    advanced: Runtime = config.Runtime(),  # noqa: B008
) -> None:
    """Compare models trained on a selection, on random rows and on others of the same size."""
    get_ready_to_train("compare", run)
    from flows.compare import compare_models

    compared = compare_models(
        comparison=comparison,
        training=training,
        measures=measures,
        output=output,
        advanced=advanced,
    )
    print_comparison(compared, compared.uri)
    print_time()


@app.command(name="train-scorer")
def train_own_scorer(
    *,
    source: SeedSource,
    rewriting: Rewriting,
    output: Output,
    training: ScorerTraining = config.ScorerTraining(),  # noqa: B008
    judging: Judging = config.Judging(),  # noqa: B008
    requests: Requests = config.Requests(),  # noqa: B008
    measures: ScorerMeasures = config.ScorerMeasures(),  # noqa: B008
    run: TrainingRun = TrainingRunOptions(),  # noqa: B008
    advanced: Runtime = config.Runtime(),  # noqa: B008
) -> None:
    """Train a scorer of your own: rewrite texts, have them judged, fit a model, measure it."""
    blocks = (rewriting.rewrite_key_block, judging.judge_key_block)
    get_ready_to_train(
        "train-scorer", run, needs_extra=training.head == "causal_lm", needs_blocks=any(blocks)
    )
    from flows.train_scorer import train_scorer

    scorer = train_scorer(
        source=source,
        rewriting=rewriting,
        training=training,
        output=output,
        judging=judging,
        requests=requests,
        measures=measures,
        advanced=advanced,
    )
    print_scorer(scorer, output.output)


def get_ready_to_train(
    command: str, run: TrainingRunOptions, needs_extra: bool = True, needs_blocks: bool = False
) -> None:
    """Check that the extra is installed, and start a server while the flow's packages load."""
    from deita_tasks.finetuning import require_packages

    if needs_extra:
        require_packages(command)
    quiet_prefect(run.verbose)
    wait = start_server(needs_blocks=needs_blocks)
    import deita_tasks.tasks  # noqa: F401 - takes seconds, as the server does

    wait()


@app.command
def preflight(
    *,
    source: Source,
    run: Run = RunOptions(),  # noqa: B008
    scoring: Scoring = config.Scoring(),  # noqa: B008
    embedding: Embedding = config.Embedding(),  # noqa: B008
    filtering: Filtering = config.Filtering(),  # noqa: B008
    advanced: Advanced = config.Advanced(),  # noqa: B008
) -> None:
    """Check models before a run: tokenizers, truncation, a few real scores, estimated time."""
    quiet_prefect(run.verbose)
    from deita_tasks.plan import plan_run
    from deita_tasks.preflight import describe_lengths, preflight

    if scoring.api_key_block:
        from deita_tasks.tasks.secrets import enable_secret_blocks

        enable_secret_blocks()
    selection = config.Selection()
    plan = plan_run(source, run.preset, scoring, embedding, selection, None, advanced, filtering)
    checks = list(preflight(plan, source.format))
    print_checks(checks, describe_lengths(plan, source.format))
    print_time()


@app.command(name="explain")
def explain_row(
    row: str | None = None,
    /,
    *,
    output: str | None = None,
    text: str | None = None,
    store: str | None = None,
    full: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Explain why a row was selected or not: scores, rank, and the selected row that blocked it.

    Parameters
    ----------
    row
        The row's id, the beginning of it, its id in a column of its own, or FILE:ROW. With --text,
        the result instead, as for --output.
    output
        Folder or s3:// URI of the result of `deita select`, or of `deita reselect`, whose latest
        version counts.
    text
        A piece of the row's text, in any case of letters. Several rows that hold it are listed.
    store
        Store of the run, if it has moved since.
    full
        Show whole texts, however long.
    """
    from deita_tasks.results.explain import explain, find_text

    if text is not None and output is None:
        row, output = None, row
    if row is None and text is None:
        raise UsageError("ROW is required, or --text with a piece of the row")
    if output is None:
        raise UsageError("--output is required: the folder of a selection")
    if row is not None and text is not None:
        raise UsageError("ROW and --text: expected one of the two")
    if text is not None:
        matches = find_text(output, text, store)
        if matches.total > 1:
            print_matches(matches)
            return
        row = matches.rows[0].row.id
    assert row is not None
    print_explanation(explain(output, row, store), full)


@app.command(name="check")
def check_record(
    record: str,
    /,
    *,
    against: str,
    store: str | None = None,
    format: str = "auto",
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Say what a selection would make of a record: its scores, and whether it would come in.

    Parameters
    ----------
    record
        A file of records in any input format, - for standard input, or one record as JSON.
    against
        Folder or s3:// URI of the result of `deita select`, or of `deita reselect`, whose latest
        version counts.
    store
        Store of the run, if it has moved since.
    format
        Input format of the records; auto detects it.
    json
        Print JSON, a line for each record.
    """
    from deita_tasks.checking import check_argument

    print_record_checks(check_argument(against, record, format, store), json)


for name, options in COMMON_OPTIONS.items():
    app[name].help_formatter = BriefHelp(options)

# Prefect raises a plain ValueError where its settings name a block that nobody saved.
MISSING_BLOCK = re.compile(r"Unable to find block document named (\S+) for block type (\S+)")
# What Prefect logs of tasks and flow after Ctrl-C.
INTERRUPTED_RUN = re.compile(r"Crash.*(interrupt signal|CancelledError)")


def quiet_prefect(verbose: bool) -> None:
    """On a terminal, replace Prefect's log by progress bars unless `verbose`.

    Nowhere does it call an interruption a crash: the command's last line tells it.
    """
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(is_no_interruption)
    if sys.stderr.isatty() and not verbose:
        os.environ.setdefault("PREFECT_LOGGING_LEVEL", "ERROR")
        # Before deita_tasks.tasks, whose filter takes the exception away.
        for name in ("prefect.flow_runs", "prefect.task_runs"):
            logging.getLogger(name).addFilter(is_news)


def is_no_interruption(record: logging.LogRecord) -> bool:
    """Return whether a log line is about anything but Ctrl-C."""
    return not INTERRUPTED_RUN.search(record.getMessage())


def is_news(record: logging.LogRecord) -> bool:
    """Return whether a log line says more than the command's last line, which tells DeitaErrors."""
    if "Finished in state" in record.getMessage():  # the error stands in a line of its own
        return False
    return not (record.exc_info and isinstance(record.exc_info[1], DeitaError))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; every known error ends in one line and an exit status."""
    # An exit that cleans up: the temporary server ends too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    guard_log()
    words = list(sys.argv[1:] if arguments is None else arguments)
    BriefHelp.show_all = HELP_ALL in words
    words = ["--help" if word == HELP_ALL else word for word in words]
    try:
        check_options(app, words)
        app(words, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        fail(describe_error(error), 2)
    except DeitaError as error:
        fail(str(error), error.exit_status)
    except KeyboardInterrupt:
        fail("interrupted; what was computed is kept, and the same command resumes", INTERRUPTED)
    except ValueError as error:
        problem = explain_settings(error)
        if problem is None:
            raise
        fail(f"Prefect's settings: {problem}", 2)
    except OSError as error:  # of the machine: a full disk, a folder without permission
        fail(str(error), 1)
    sys.exit(0)


def explain_settings(error: ValueError) -> str | None:
    """Return what is wrong with Prefect's settings; None if the error is about something else."""
    if isinstance(error, ValidationError) and error.title.endswith("Settings"):
        return explain_error(error)
    missing = MISSING_BLOCK.search(str(error))
    if missing is None:
        return None
    name, kind = missing.groups()
    return f"they name the block {kind}/{name}, which nobody saved; save it, or unset the setting"


def fail(message: str, status: int) -> NoReturn:
    """Print an error in one line, whatever a library put into it, and exit."""
    lines = [line.strip() for line in safe(message).splitlines()]
    print("deita:", *filter(None, lines), file=sys.stderr)
    sys.exit(status)
