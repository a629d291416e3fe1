"""README.md of a subset: the card by which `datasets` and the hub read its folder."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import yaml
from huggingface_hub import DatasetCard, DatasetCardData

from deita_tasks import storage
from deita_tasks.exporting.base import LICENCE_COLUMNS, Survey
from deita_tasks.exporting.features import describe_features, describe_type, json_text_columns
from deita_tasks.exporting.layout import Layout
from deita_tasks.exporting.trainers import Recipes
from deita_tasks.strict_json import JSON
from deita_tasks.templating import escape_markdown, template_environment

if TYPE_CHECKING:
    from deita_tasks.manifest import Manifest

CARD_FILE = "README.md"
MAX_FEATURES = 10_000  # columns that the front matter lists; more take YAML over 10 s to read
PATH_PARAMETERS = ("input", "output", "store", "file", "pool")
# A line that a reader may take for the end of the front matter: a column's name can hold it.
ENDS_FRONT_MATTER = re.compile(r"^\s*---\s*$", re.MULTILINE)
LANGUAGE_COLUMNS = ("language", "lang")
LANGUAGE_CODE = re.compile(r"[a-z]{2,3}")
MAX_LANGUAGES = 50
# The hub's identifiers of licences that are common for datasets
# (https://huggingface.co/docs/hub/repositories-licenses).
HUB_LICENCES = frozenset(
    {
        "apache-2.0",
        "mit",
        "bsd-3-clause",
        "cc0-1.0",
        "cc-by-2.0",
        "cc-by-3.0",
        "cc-by-4.0",
        "cc-by-sa-3.0",
        "cc-by-sa-4.0",
        "cc-by-nc-2.0",
        "cc-by-nc-3.0",
        "cc-by-nc-4.0",
        "cc-by-nc-sa-3.0",
        "cc-by-nc-sa-4.0",
        "cc-by-nc-nd-4.0",
        "cc-by-nd-4.0",
        "odc-by",
        "odbl",
        "pddl",
        "gfdl",
        "gpl-3.0",
        "cdla-permissive-2.0",
        "unlicense",
    }
)
SIZE_CATEGORIES = [
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
]
# What the columns of a conversation and the fields of its turns are.
MEANINGS = {
    "messages": "the conversation, a list of turns",
    "conversations": "the conversation, a list of turns",
    "conversation": "the conversation, a list of turns",
    "prompt": "what the user says",
    "response": "the answer",
    "instruction": "what the user says",
    "input": "what the instruction is about",
    "output": "the answer",
    "history": "the exchanges before, each a user's text and the answer",
    "system": "the system prompt",
    "tools": "the tools that the model may call",
}
FIELD_MEANINGS = {
    "role": "whose turn it is",
    "from": "whose turn it is",
    "content": "its text",
    "value": "its text; of function_call, the calls as JSON",
    "tool_calls": "the calls of tools, each with name and arguments",
    "tool_call_id": "the call that a tool answers",
    "name": "the name of the speaker or the tool",
    "reasoning_content": "the reasoning before the answer",
    "reasoning": "the reasoning before the answer",
    "thinking": "the reasoning before the answer",
    "weight": "the weight in the loss, as the input has it",
}


class DataFiles(NamedTuple):
    """The files of a subset.

    pattern: matches all of them, relative to the folder. place: the file, or the folder that holds
    nothing else. bytes: their size. digest: changes whenever a byte of them does.
    """

    pattern: str
    place: str
    bytes: int
    digest: str

    @classmethod
    def describe(cls, folder: Path, files: Sequence[Path]) -> DataFiles:
        """Describe the `files` of a subset in `folder`."""
        infos = [storage.describe(str(path)) for path in files]
        size = sum(info.bytes for info in infos)
        digest = storage.digest_of([info.sha256 for info in infos])
        first = files[0].relative_to(folder)
        if first.parent == Path("."):
            return cls(first.name, first.name, size, digest)
        place = first.parent.as_posix()
        return cls(f"{place}/train-*.parquet", place, size, digest)


@dataclass(frozen=True)
class Contents:
    """What a subset holds. types: the type of every column, in order."""

    survey: Survey
    layout: Layout
    types: Mapping[str, pa.DataType]
    files: DataFiles

    @property
    def json_columns(self) -> list[str]:
        """The columns with values that no other type holds."""
        return json_text_columns(self.types)


def render_card(contents: Contents, recipes: Recipes, manifest: Manifest | None) -> str:
    """Return the card: metadata for `datasets` and the hub, then columns, use and provenance."""
    manifest = without_folders(manifest) if manifest else None
    survey = contents.survey
    environment = template_environment(
        "deita_tasks.exporting", keep_trailing_newline=True, finalize=_escape_text
    )
    licences: Counter[str] = Counter()
    for name in LICENCE_COLUMNS:
        licences += survey.tallies[name]
    metadata = front_matter(contents, licences)
    front = DatasetCardData(**metadata).to_yaml()
    tallies = {name: tally.most_common(20) for name, tally in survey.tallies.items() if tally}
    template = environment.get_template("card.md.jinja")
    return template.render(
        front=Verbatim(f"{front}\n"),
        contents=contents,
        columns=_describe_columns(contents),
        turn_fields=_describe_turn_fields(contents),
        recipes=recipes,
        trl_lines=Verbatim(recipes.trl.text) if recipes.trl.text else None,
        fingerprints=Verbatim(manifest.pretty(manifest.fingerprints)) if manifest else None,
        survey=survey,
        manifest=manifest,
        licences=licences,
        tallies=tallies,
    )


def move_data_files(card: str, folder: str, mark: str) -> str:
    """Return a card for a place from where its data files lie in `folder`.

    mark: text that is put before its first line of Markdown.
    """
    moved = DatasetCard(card)
    for config in moved.data["configs"]:
        for files in config["data_files"]:
            files["path"] = f"{folder}/{files['path']}"
    moved.text = f"{mark}\n{moved.text}"
    return str(moved)


class Verbatim(str):
    """Text that goes into the card as it is."""


def _escape_text(value: Any) -> Any:
    """Escape every text that the template inserts into the card."""
    if not isinstance(value, str) or isinstance(value, Verbatim):
        return value
    return escape_markdown(value)


def without_folders(manifest: Manifest) -> Manifest:
    """Return a manifest that names local files and models without the folders they lie in."""
    inputs = []
    for file in manifest.inputs:
        uri = _public("input", file.uri)
        inputs.append(file.model_copy(update={"uri": uri}))
    models = []
    for model in manifest.models:
        model_id = _public("model", model.id)
        models.append(model.model_copy(update={"id": model_id}))
    parameters = _public("", manifest.parameters)
    fingerprints = _public("", manifest.fingerprints)
    return manifest.model_copy(
        update={
            "inputs": inputs,
            "models": models,
            "parameters": parameters,
            "fingerprints": fingerprints,
        }
    )


def _public(name: str, value: Any) -> Any:
    """Return the value of the parameter `name` with local paths cut to their last step."""
    if isinstance(value, dict):
        return {key: _public(key, item) for key, item in value.items()}
    if isinstance(value, list):
        return [_public(name, item) for item in value]
    if not isinstance(value, str):
        return value
    is_path = name.endswith(PATH_PARAMETERS) or value.startswith(("/", "~", "./", "../", "file:"))
    if name.endswith("model"):  # a hub id has one slash too
        is_path |= value.count("/") > 1 or os.path.exists(value)
    is_remote = "://" in value and not value.startswith(("file:", "local:"))
    if is_remote or not is_path:
        return value
    return value.rstrip("/").rsplit("/", 1)[-1]


def _describe_columns(contents: Contents) -> list[tuple[str, str, str]]:
    """Return name, type and meaning of every column."""
    survey = contents.survey
    beside = {survey.output_name(name): name for name in survey.extra_types}
    scores = {output: name for name, output in survey.score_names.items()}
    columns = []
    for name, kind in contents.types.items():
        if name in scores:
            continue  # the template describes them
        meaning = "as in the input"
        if name in beside and beside[name] != name:
            meaning += f", where it is called {beside[name]}"
        elif name in MEANINGS and (name not in beside or _is_own(name, contents)):
            meaning = MEANINGS[name]
        columns.append((name, describe_type(kind), meaning))
    return columns


def _is_own(name: str, contents: Contents) -> bool:
    """Return whether an input column holds turns in every row, or what belongs to them."""
    form = contents.layout.form
    if form is not None and name in form.columns:
        return True
    side_columns = contents.layout.columns.values()
    return any(name in names for names in side_columns)


def _describe_turn_fields(contents: Contents) -> list[tuple[str, str]]:
    """Return name and meaning of every field that turns have."""
    fields = contents.layout.turn_fields
    return [(name, FIELD_MEANINGS.get(name, "as in the input")) for name in fields]


def front_matter(contents: Contents, licences: Counter[str]) -> dict[str, Any]:
    """Return the metadata of the card (https://huggingface.co/docs/hub/datasets-cards).

    `datasets` keeps what it has loaded under a hash of this metadata, so the digest in it keeps a
    reader from getting an earlier subset of the same path.
    """
    rows = contents.survey.rows
    files = contents.files
    size = next((name for limit, name in SIZE_CATEGORIES if rows < limit), "n>10M")
    split = {"name": "train", "num_bytes": files.bytes, "num_examples": rows}
    info: dict[str, Any] = {
        "config_name": "default",
        "splits": [split],
        "download_size": files.bytes,
        "dataset_size": files.bytes,
    }
    features = describe_features(contents.types)
    if len(features) <= MAX_FEATURES:
        text = yaml.safe_dump(features)
        if not ENDS_FRONT_MATTER.search(text):
            info["features"] = features
    return {
        "pretty_name": f"DEITA selection of {rows:,} conversations",
        "language": _languages(contents.survey),
        "license": _hub_licence(rows, licences),
        "task_categories": ["text-generation"],
        "tags": ["instruction-tuning", "data-selection", "deita"],
        "size_categories": [size],
        "dataset_info": info,
        "configs": [
            {
                "config_name": "default",
                "description": f"selection {files.digest}",
                "data_files": [{"split": "train", "path": files.pattern}],
            }
        ],
    }


def _languages(survey: Survey) -> list[str] | None:
    """Return the codes of languages that a column states; None if it states none, or names."""
    for column in LANGUAGE_COLUMNS:
        tally = survey.tallies.get(column, ())
        stated = {name.strip().lower() for name in tally}
        if not stated or len(stated) > MAX_LANGUAGES:
            continue
        if all(LANGUAGE_CODE.fullmatch(name) for name in stated):
            return sorted(stated)
    return None


def _hub_licence(rows: int, licences: Counter[str]) -> JSON:
    """Return the hub's identifiers of the licences if every row states a known one."""
    identifiers = sorted({name.strip().lower() for name in licences})
    if not identifiers:
        return "unknown"
    if licences.total() == rows and HUB_LICENCES.issuperset(identifiers):
        return identifiers
    return "other"
