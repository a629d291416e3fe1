"""The options of the commands: the fields of a flow's parameters, a YAML file and the help.

cyclopts turns the fields of `deita_tasks/config.py` into options. This module adds what it does not
know: sections of a YAML file, a first screen of help with the options most people need, and
mistakes told in one line.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any, get_origin

import cyclopts
import yaml
from cyclopts import App, CycloptsError, Parameter, Token, UnusedCliTokensError, ValidationError
from cyclopts.argument import Argument, ArgumentCollection
from cyclopts.exceptions import MissingArgumentError
from cyclopts.help import DefaultFormatter, HelpPanel
from cyclopts.utils import is_option_like
from pydantic import BaseModel, ConfigDict, Field
from pydantic import ValidationError as PydanticError
from rich.console import Console, ConsoleOptions

from deita_tasks import config
from deita_tasks.addresses import check_no_password
from deita_tasks.config import PresetName
from deita_tasks.errors import StorageError, UsageError
from deita_tasks.strict_json import JsonRecord
from deita_tasks.validation import explain_error

HELP_ALL = "--help-all"
MAX_CONFIG_CHARACTERS = 4 << 20
MAX_CONFIG_VALUES = 100_000
MAX_CONFIG_DEPTH = 20
PLACES = {"output", "overwrite"}  # options that a run which repeats another has to be given anew

# The ten options of a command's help, at most; --help-all shows the others too.
COMMON_OPTIONS = {
    "select": {
        *("input", "output", "output_format", "overwrite", "preset", "budget", "strategy"),
        *("max_similarity", "store", "config"),
    },
    "reselect": {
        *("input", "output", "output_format", "keep_versions", "preset", "budget", "strategy"),
        *("max_similarity", "store", "config"),
    },
    "sweep": {
        *("input", "output", "overwrite", "preset", "budgets", "similarities", "strategies"),
        *("store", "config"),
    },
    "solve": {"input", "preset", "budget", "store", "config"},
    "preflight": {"input", "preset", "complexity", "quality", "embedding", "device", "config"},
    "align": {
        *("input", "output", "overwrite", "base", "recipe", "preferences", "epochs", "max_length"),
        *("store", "config"),
    },
    "compare": {
        *("selection", "output", "overwrite", "base", "recipe", "arms", "held_out", "pairs"),
        *("tasks", "config"),
    },
    "train-scorer": {
        *("input", "output", "kind", "chains", "rewrite_url", "rewrite_model", "judge_model"),
        *("dry_run", "labelled", "config"),
    },
}

ConfigFile = Annotated[
    str | None,
    Field(
        description="YAML file with parameters by section; or the manifest.json of a result, or "
        "its folder, to run the same again. Options override it."
    ),
]
Verbose = Annotated[
    bool, Parameter(alias="-v", negative=""), Field(description="Show Prefect's log, task by task.")
]


class RunOptions(BaseModel):
    """Options of every command that runs a flow, beside the flow's parameters."""

    model_config = ConfigDict(frozen=True)

    preset: PresetName = Field("mini", description=config.PRESET_HELP)
    config: ConfigFile = None
    verbose: Verbose = False


class TrainingRunOptions(BaseModel):
    """Options of every command that trains, beside the flow's parameters."""

    model_config = ConfigDict(frozen=True)

    config: ConfigFile = None
    verbose: Verbose = False


# The panels of help, in this order; each is a section of the YAML file.
PANELS = (
    *("source", "export", "output", "run", "scoring", "embedding", "filtering"),
    *("selection", "grid", "budget", "comparison", "rewriting", "judging", "requests"),
    *("training", "preferences", "measures"),
    "advanced",
)


def _section(name: str) -> Parameter:
    """Return what makes the fields of a group options of their own, in a panel of its name."""
    group = cyclopts.Group(name, sort_key=PANELS.index(name))
    return Parameter(name="*", group=group, negative_iterable=())


Source = Annotated[config.Source, _section("source")]
Scoring = Annotated[config.Scoring, _section("scoring")]
Embedding = Annotated[config.Embedding, _section("embedding")]
Filtering = Annotated[config.Filtering, _section("filtering")]
Selection = Annotated[config.Selection, _section("selection")]
Export = Annotated[config.Export, _section("export")]
Versions = Annotated[config.Versions, _section("export")]
Output = Annotated[config.Output, _section("output")]
Grid = Annotated[config.Grid, _section("grid")]
Budget = Annotated[config.Budget, _section("budget")]
Advanced = Annotated[config.Advanced, _section("advanced")]
Runtime = Annotated[config.Runtime, _section("advanced")]
TrainingData = Annotated[config.TrainingData, _section("source")]
Training = Annotated[config.Training, _section("training")]
Preferences = Annotated[config.Preferences, _section("preferences")]
Comparison = Annotated[config.Comparison, _section("comparison")]
Measures = Annotated[config.Measures, _section("measures")]
SeedSource = Annotated[config.SeedSource, _section("source")]
Rewriting = Annotated[config.Rewriting, _section("rewriting")]
Judging = Annotated[config.Judging, _section("judging")]
Requests = Annotated[config.Requests, _section("requests")]
ScorerTraining = Annotated[config.ScorerTraining, _section("training")]
ScorerMeasures = Annotated[config.ScorerMeasures, _section("measures")]
Run = Annotated[RunOptions, _section("run")]
TrainingRun = Annotated[TrainingRunOptions, _section("run")]


def flag(name: str) -> str:
    """Return the option of a field: input_format -> --input-format."""
    return "--" + name.replace("_", "-")


# ---- help


class BriefHelp(DefaultFormatter):
    """Help that shows the common options, and all of them after --help-all."""

    show_all = False

    def __init__(self, common: Set[str]) -> None:
        super().__init__()
        self.common = common

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        """Show a panel; leave it out if it has no entry."""
        if not self.show_all and panel.format == "parameter":
            panel = panel.copy(entries=[entry for entry in panel.entries if self._is_common(entry)])
        if panel.entries:
            super().__call__(console, options, panel)

    def _is_common(self, entry: Any) -> bool:
        return any(name.removeprefix("--").replace("-", "_") in self.common for name in entry.names)


# ---- the file of --config: YAML, or the manifest of a result


class ConfigLoader(yaml.SafeLoader):
    """YAML loader that refuses a repeated key, and aliases that grow without bounds.

    PyYAML silently takes the last of repeated keys. Aliases of aliases make gigabytes of a few
    lines.
    """

    def __init__(self, text: str, name: str) -> None:
        super().__init__(text)
        self.name = name
        self._depth = 0
        self._sizes: dict[yaml.Node, float] = {}  # values below each node, those of aliases too

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Raise UsageError for more than MAX_CONFIG_VALUES, or MAX_CONFIG_DEPTH levels of them."""
        if self.check_event(yaml.AliasEvent):
            return super().compose_node(parent, index)
        self._depth += 1
        line = f"{self.name}, line {self.line + 1}"
        if self._depth > MAX_CONFIG_DEPTH:
            raise UsageError(
                f"{line}: over {MAX_CONFIG_DEPTH} levels; expected sections of options"
            )
        node: Any = super().compose_node(parent, index)
        self._depth -= 1
        children = [] if isinstance(node, yaml.ScalarNode) else node.value
        if isinstance(node, yaml.MappingNode):
            children = [child for pair in children for child in pair]
        # An alias of a node that is not complete contains itself.
        size = 1 + sum(self._sizes.get(child, math.inf) for child in children)
        if size > MAX_CONFIG_VALUES:
            raise UsageError(
                f"{line}: aliases make this more than {MAX_CONFIG_VALUES:,} values; expected "
                "sections of options"
            )
        self._sizes[node] = size
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Raise UsageError for a repeated key; keys merged in by `<<` may be repeated."""
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            mark = key.start_mark
            name = (key.tag, str(key.value))
            if name in lines:
                raise UsageError(
                    f"{mark.name}, line {mark.line + 1}: repeats {key.value!r} of line "
                    f"{lines[name]}; expected it once"
                )
            lines[name] = mark.line + 1
        return node


class RunParameters(JsonRecord):
    """What the manifest of any result says of the parameters that made it."""

    model_config = ConfigDict(extra="ignore")

    preset: str | None = None
    parameters: dict[str, dict[str, Any]]

    def sections(self) -> dict[str, Any]:
        """Return what a YAML file would say, without where the result went."""
        preset = {} if self.preset is None else {"preset": self.preset}
        sections = {
            section: {name: value for name, value in values.items() if name not in PLACES}
            for section, values in self.parameters.items()
        }
        return preset | sections


def find_manifest(place: str) -> str | None:
    """Return the manifest that `place` names, itself or by its folder; None for another file."""
    from deita_tasks import storage
    from deita_tasks.manifest import MANIFEST
    from deita_tasks.results.versions import result_uri

    if place.rsplit("/", 1)[-1] == MANIFEST:
        return place
    if not storage.is_local(place) or Path(place).is_dir():
        return storage.join(result_uri(place), MANIFEST)
    return None


def read_manifest(uri: str) -> dict[str, Any]:
    """Return the sections of options that made a result. Raises UsageError if it says none."""
    from deita_tasks import storage

    try:
        return storage.read_record(uri, RunParameters).sections()
    except StorageError as error:
        raise UsageError(f"{error}; expected the manifest.json of a result") from error


def read_config(path: Path) -> dict[str, Any]:
    """Return the sections of a YAML file. Raises UsageError if it is not such a file."""
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_CONFIG_CHARACTERS + 1)
        if len(text) > MAX_CONFIG_CHARACTERS:
            raise ValueError(f"over {MAX_CONFIG_CHARACTERS:,} characters")
        content = ConfigLoader(text, str(path)).get_single_data()
    except (OSError, ValueError, yaml.YAMLError) as error:
        problem = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
        raise UsageError(f"{path}: not a readable YAML file: {problem}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UsageError(f"{path}: a {type(content).__name__}; expected sections with options")
    return content


def apply_config(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Give the options that the command line leaves unset their values in the --config file.

    cyclopts calls this after it has read the command line.
    """
    sections: dict[str, dict[str, Argument]] = {}
    for argument in arguments:
        if argument.keys:  # a field of a group
            sections.setdefault(_section_of(argument), {})[argument.keys[-1]] = argument
    run_options = sections.pop("run", {})
    if not run_options or not run_options["config"].tokens:
        return
    file = run_options["config"].tokens[0].value
    manifest = find_manifest(file)
    if manifest is None:
        content = read_config(Path(file))
    else:
        content = read_manifest(manifest)
        _check_output(file, sections)
    if "preset" in content:
        _apply_section(file, "run", {"preset": content.pop("preset")}, run_options)
    for section, values in content.items():
        if section not in sections:
            expected = ", ".join(["preset", *sections])
            raise UsageError(f"{file}: unknown section {section!r}; expected {expected}")
        _apply_section(file, section, values, sections[section])


def _check_output(file: str, sections: Mapping[str, Mapping[str, Argument]]) -> None:
    """Raise UsageError unless a run that repeats another has a place for its own result."""
    for arguments in sections.values():
        if "output" in arguments and not arguments["output"].tokens:
            raise UsageError(
                f"--output is required: {file} gives every option but the place of the result"
            )


def _section_of(argument: Argument) -> str:
    groups: Any = argument.parameter.group
    return str(groups[0].name)


def _apply_section(file: str, section: str, values: Any, arguments: Mapping[str, Argument]) -> None:
    if values is None:
        return
    if not isinstance(values, Mapping):
        raise UsageError(f"{file}: section {section!r}: {values!r}; expected options with values")
    for name, value in values.items():
        if name not in arguments:
            hint = _did_you_mean(str(name), arguments)
            raise UsageError(f"{file}: {section}: unknown option {name!r}{hint}")
        argument = arguments[name]
        if value is None or argument.tokens:
            continue
        if get_origin(argument.hint) is list and not isinstance(value, list):
            value = [value]
        argument.append(Token(keyword=name, source=str(file), implicit_value=value))


# ---- mistakes


def check_options(app: App, words: Sequence[str]) -> None:
    """Raise UsageError for a password in an address, or for the first unknown option.

    cyclopts reports it last, after a missing option or a mistake in the YAML file.
    """
    try:
        check_no_password(list(words))
    except ValueError as error:
        raise UsageError(str(error)) from None
    names = {HELP_ALL, *app.help_flags, *app.version_flags}
    if not names.isdisjoint(words):
        return
    commands, apps, rest = app.parse_commands(words)
    is_group = apps[-1].default_command is None  # of commands, as `deita store`
    if not is_group:
        options = apps[-1].assemble_argument_collection()
        names.update(name for option in options for name in option.names if name[0] == "-")
    before = ""
    for word in takewhile(lambda word: word != "--", rest):
        if is_option_like(word):
            if not _is_known(word, names):
                raise UsageError(_describe_unknown(word, before, names, ["deita", *commands]))
        elif is_group:
            return  # an unknown command
        before = word


def _is_known(word: str, names: Set[str]) -> bool:
    if not word.startswith("--"):
        return word[:2] in names  # -v, -vv, -v=true
    return word.split("=")[0].replace("_", "-") in names


def _describe_unknown(word: str, before: str, names: Set[str], command: Sequence[str]) -> str:
    if before.startswith("--") and not word.startswith("--"):
        return f"{before} needs a value; is it {before}={word}?"
    name = word.split("=")[0]
    hint = _did_you_mean(name, names) or f"; `{' '.join(command)} {HELP_ALL}` lists them all"
    return f"unknown option {name}{hint}"


def _did_you_mean(word: str, names: Iterable[str]) -> str:
    # Without the dashes, which would make all options alike.
    bare = {name.lstrip("-"): name for name in names}
    nearest = difflib.get_close_matches(word.lstrip("-"), bare, n=1)
    return f"; did you mean {bare[nearest[0]]}?" if nearest else ""


def describe_error(error: CycloptsError) -> str:
    """Return what is wrong with a command line, in the words of our own errors."""
    argument = error.argument
    if isinstance(error, MissingArgumentError) and argument is not None:
        if error.keyword:
            return f"{error.keyword} needs a value"
        hint = f" (or set it in the section {_section_of(argument)!r} of --config)"
        return f"{argument.name} is required{hint if argument.keys else ''}"
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        return (
            f"unexpected argument {error.unused_tokens[0]!r}; for several values repeat the "
            "option, and quote a glob"
        )
    if isinstance(error, ValidationError) and isinstance(error.__cause__, PydanticError):
        section = "" if argument is None else argument.field_info.name
        # The file has no section for the options of RunOptions.
        return explain_error(error.__cause__, "" if section == "run" else section)
    return str(error)
