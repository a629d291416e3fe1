"""`deita`: a sub-command a flow, and the small tools.

The options of a command are the fields of its flow's parameters (`deita_tasks/config.py`), one flag
a field: nothing is said twice, and what the form in the Prefect UI asks for, the command line and a
YAML file can say too.
"""

from __future__ import annotations

import inspect
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, get_args, get_origin

import typer
import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from deita_tasks.components import explain
from deita_tasks.config import (
    Advanced,
    Budget,
    Embedding,
    Export,
    Grid,
    Output,
    PresetName,
    Scoring,
    Selection,
    Source,
    Versions,
)
from deita_tasks.errors import DeitaError, UsageError
from flows.cli.printing import (
    print_checks,
    print_explanation,
    print_solution,
    print_summary,
    print_sweep,
    print_version,
)
from flows.cli.server import start_server
from flows.cli.store import app as store_app

app = typer.Typer(
    name="deita",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

app.add_typer(store_app, name="store")

MODELS: dict[str, type[BaseModel]] = {"source": Source, "scoring": Scoring, "embedding": Embedding}
GROUPS: dict[str, type[BaseModel]] = {
    **MODELS,
    "selection": Selection,
    "export": Export,
    "advanced": Advanced,
}
RESELECT_GROUPS: dict[str, type[BaseModel]] = {**GROUPS, "export": Versions}
SWEEP_GROUPS: dict[str, type[BaseModel]] = {
    **MODELS,
    "grid": Grid,
    "output": Output,
    "advanced": Advanced,
}
PREFLIGHT_GROUPS: dict[str, type[BaseModel]] = {**MODELS, "advanced": Advanced}
SOLVE_GROUPS: dict[str, type[BaseModel]] = {**MODELS, "budget": Budget, "advanced": Advanced}

# What every command that runs a flow has beside the fields of its groups.
Preset = Annotated[
    PresetName | None,
    typer.Option(
        help="mini: for a CPU; paper: the published 7B scorers. (default: mini)", show_default=False
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        help="YAML file with the flow's parameters, by group; flags win over it.",
        show_default=False,
    ),
]
Verbose = Annotated[
    bool,
    typer.Option("--verbose", "-v", help="Show Prefect's log, task by task.", show_default=False),
]

STOPPED = 130  # what Typer makes of Ctrl-C


def flag(name: str) -> str:
    """The flag of a field: input_format -> --input-format."""
    return "--" + name.replace("_", "-")


def _option(name: str, field: FieldInfo, panel: str) -> inspect.Parameter:
    """One field as one option. An option that is not given is None, so that a YAML file or the
    model's default can speak.
    """
    default = field.get_default()
    shown = (
        None
        if default is None or field.is_required()
        else str(default).lower()
        if isinstance(default, bool)
        else str(default)
    )
    help = f"{field.description}{' (required)' if field.is_required() else f' (default: {shown})' if shown is not None else ''}"
    kind = _plain(field.annotation)
    help += " May be given several times." if get_origin(kind) is list else ""
    flags = [f"{flag(name)}/--no-{name.replace('_', '-')}"] if kind is bool else [flag(name)]
    info = typer.Option(*flags, help=help, rich_help_panel=panel, show_default=False)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, info]
    )


def _plain(annotation: Any) -> Any:
    """The type without its None; of a list, without what its members have to be beyond a number or
    a text: the model sees to that.
    """
    kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
    if get_origin(annotation) is list:
        origins: dict[Any, Any] = {Annotated: get_args(kinds[0])[:1], Literal: (str,)}
        return list[origins.get(get_origin(kinds[0]), kinds)[0]]  # type: ignore[misc]
    return kinds[0] if type(None) in get_args(annotation) and len(kinds) == 1 else annotation


def flow_command(
    models: Mapping[str, type[BaseModel]],
) -> Callable[[Callable[[Any, Any], None]], Callable[..., None]]:
    """Make the fields of `models`, by group, options of `command(preset, groups)`, which gets the
    groups when all in them is right.
    """

    def of(command: Callable[[Any, Any], None]) -> Callable[..., None]:
        def with_options(
            *, preset: Preset = None, config: Config = None, verbose: Verbose = False, **flat: Any
        ) -> None:
            given = {
                group: {name: flat[name] for name in model.model_fields}
                for group, model in models.items()
            }
            told = {
                group: {name: value for name, value in fields.items() if value not in (None, [])}
                for group, fields in given.items()
            }
            parameters = merge(
                read_config(config), {**({"preset": preset} if preset else {}), **told}
            )
            groups = {
                name: build(model, name, parameters.pop(name, None) or {})
                for name, model in models.items()
            }
            preset = parameters.pop("preset", "mini")
            if preset not in get_args(PresetName):
                raise UsageError(
                    f"preset = {preset!r}: expected one of {', '.join(get_args(PresetName))}"
                )
            if parameters:
                raise UsageError(
                    f"{config}: unknown section {', '.join(map(repr, parameters))}; expected "
                    f"preset, {', '.join(models)}"
                )
            quiet_prefect(verbose)
            command(preset, groups)

        own = [
            one
            for one in inspect.signature(with_options, eval_str=True).parameters.values()
            if one.name != "flat"
        ]
        fields = [
            _option(name, field, group)
            for group, model in models.items()
            for name, field in model.model_fields.items()
        ]
        with_options.__signature__ = inspect.Signature([*own, *fields])  # type: ignore[attr-defined]
        with_options.__doc__, with_options.__name__ = command.__doc__, command.__name__
        return with_options

    return of


@app.callback()
def deita() -> None:
    """Select the few conversations of an instruction pool that are worth fine-tuning on (DEITA)."""


def get_ready(preset: PresetName, groups: Mapping[str, Any], **instead: Any) -> None:
    """See to it that nothing is wrong in the parameters and that a server answers. `instead`: what
    a plan takes and the flow does not.
    """
    wait = start_server()
    from deita_tasks.plan import plan_run

    given = {"preset": preset, **groups, **instead}
    plan_run(**{name: given[name] for name in inspect.signature(plan_run).parameters})
    import deita_tasks.tasks  # noqa: F401 - takes seconds, as the server does

    wait()


@app.command()
@flow_command(GROUPS)
def select(preset: PresetName, groups: Mapping[str, Any]) -> None:
    """Select the conversations of a pool that are worth fine-tuning on."""
    get_ready(preset, groups)
    from flows.select import select_subset

    print_summary(
        select_subset(preset=preset, **groups), groups["selection"], groups["export"].output
    )


@app.command()
@flow_command(RESELECT_GROUPS)
def reselect(preset: PresetName, groups: Mapping[str, Any]) -> None:
    """Select again from a pool that may have grown, as a new version beside the earlier ones."""
    get_ready(preset, groups)
    from flows.reselect import reselect_subset

    print_version(
        reselect_subset(preset=preset, **groups), groups["selection"], groups["export"].output
    )


@app.command()
@flow_command(SWEEP_GROUPS)
def sweep(preset: PresetName, groups: Mapping[str, Any]) -> None:
    """Compare selections: strategies, limits and budgets, with random ones as the control."""
    get_ready(preset, groups, selection=Selection(), export=groups["output"])
    from flows.sweep import sweep_selections

    print_sweep(sweep_selections(preset=preset, **groups), groups["output"].output)


@app.command()
@flow_command(SOLVE_GROUPS)
def solve(preset: PresetName, groups: Mapping[str, Any]) -> None:
    """Find the smallest --max-similarity, and so the most diverse selection, that still fills a
    budget.
    """
    get_ready(preset, groups, selection=Selection(), export=None)
    from flows.solve import solve_for_budget

    print_solution(solve_for_budget(preset=preset, **groups), groups["budget"].budget)


@app.command()
@flow_command(PREFLIGHT_GROUPS)
def preflight(preset: PresetName, groups: Mapping[str, Any]) -> None:
    """Look before a run: tokenizers, what would be cut, a few real scores, and about how long it
    will take.
    """
    from deita_tasks.plan import plan_run
    from deita_tasks.preflight import preflight

    if groups["scoring"].api_key_block:
        import deita_tasks.tasks  # noqa: F401 - it knows how to read a Secret block
    plan = plan_run(preset=preset, selection=Selection(), export=None, **groups)
    print_checks(list(preflight(plan, groups["source"].format)))


@app.command("explain")
def explain_row(
    row: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="The row's id, the beginning of it, or FILE:ROW.", show_default=False
        ),
    ],
    output: Annotated[
        str,
        typer.Option(
            help="Folder or s3:// URI of the result that `deita select` has written.",
            show_default=False,
        ),
    ],
    store: Annotated[
        str | None,
        typer.Option(
            help="Store of the run, if it does not lie where it did then.", show_default=False
        ),
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Show whole texts, however long.", show_default=False)
    ] = False,
) -> None:
    """Say why a row was selected or not: its scores and rank, the kept row that blocked it, the
    rows that it blocked.
    """
    from deita_tasks.results.explain import explain

    print_explanation(explain(output, row, store), full)


class UniqueKeys(yaml.SafeLoader):
    """YAML in which a key stands once in its section: PyYAML would go by the last one and say
    nothing of the others.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Raises UsageError for a key that is there twice; keys that are merged in by `<<` may be
        there too.
        """
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            mark, name = key.start_mark, (key.tag, str(key.value))
            if name in lines:
                raise UsageError(
                    f"{mark.name}, line {mark.line + 1}: {key.value!r} stands in line "
                    f"{lines[name]} already; expected it once"
                )
            lines[name] = mark.line + 1
        return node


def read_config(path: Path | None) -> dict[str, Any]:
    """The flow's parameters in a YAML file. Raises UsageError where it is not one."""
    if path is None:
        return {}
    try:
        with path.open(encoding="utf-8") as file:
            content = UniqueKeys(file).get_single_data()
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UsageError(
            f"{path}: not a YAML file that can be read: {' '.join(str(error).split())}"
        ) from error
    if not isinstance(content or {}, dict):
        raise UsageError(
            f"{path}: a {type(content).__name__}; expected sections {', '.join(GROUPS)}"
        )
    return content or {}


def merge(config: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """`given` over `config`, group by group. Raises UsageError where a group of `config` is not
    one.
    """
    merged = dict(config)
    for name, value in given.items():
        held = merged.get(name) or {}
        if isinstance(value, Mapping):
            if not isinstance(held, Mapping):
                raise UsageError(f"section {name!r}: {held!r}; expected options with their values")
            value = {**held, **value}
        merged[name] = value
    return merged


def build(model: type[BaseModel], name: str, values: Mapping[str, Any]) -> BaseModel:
    """A group from its values. Raises UsageError, in one line, for what is wrong in them."""
    missing = [
        flag(field)
        for field, info in model.model_fields.items()
        if info.is_required() and field not in values
    ]
    if missing:
        raise UsageError(
            f"{' and '.join(missing)} must be given (or stand in the section {name!r} of --config)"
        )
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UsageError(f"{name}: {explain(error)}") from error


def quiet_prefect(verbose: bool) -> None:
    """On a terminal the bars say what happens, so Prefect's own log is shown only when asked for;
    elsewhere it is the log.
    """
    os.environ.setdefault(
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180"
    )  # 20, the default, is too short on a busy machine
    os.environ.setdefault(
        "PREFECT_SERVER_ANALYTICS_ENABLED", "false"
    )  # of the temporary server: offline it ends in a traceback
    if sys.stderr.isatty() and not verbose:
        os.environ.setdefault("PREFECT_LOGGING_LEVEL", "ERROR")
        for name in (
            "prefect.flow_runs",
            "prefect.task_runs",
        ):  # before deita_tasks.tasks, whose filter takes the exception away
            logging.getLogger(name).addFilter(says_more)


def says_more(record: logging.LogRecord) -> bool:
    """Whether a line of the log says more than the command's own last one, as a failure that we
    know does not.
    """
    return not (record.exc_info and isinstance(record.exc_info[1], DeitaError))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line. A user's mistake ends in one line and status 2, any other failure that
    we know in one line and status 1.
    """
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM)
    )  # an end with clean-up: the temporary server ends too
    try:
        status = app(args=list(arguments) if arguments is not None else None, standalone_mode=False)
    except typer.TyperException as error:
        fail(error.format_message(), 2)
    except DeitaError as error:
        fail(str(error), error.exit_status)
    if status == STOPPED:
        fail(
            "stopped; what was computed stays in the store, and the same command goes "
            "on from there",
            STOPPED,
        )
    sys.exit(status if isinstance(status, int) else 0)


def fail(message: str, status: int) -> NoReturn:
    """Say what is wrong, in one line whatever a library put into it, and end."""
    if message.strip():  # `deita` alone has shown its help, and says no more
        print(
            "deita:",
            *(line.strip() for line in message.splitlines() if line.strip()),
            file=sys.stderr,
        )
    sys.exit(status)
