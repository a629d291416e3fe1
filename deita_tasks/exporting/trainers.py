"""Files and lines by which TRL, LLaMA-Factory and axolotl read a subset.

What a trainer would read wrongly gets no file: the card says why, and which format to choose.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import yaml

from deita_tasks.exporting.layout import Form, Layout, Part
from deita_tasks.strict_json import JSON

LLAMA_FACTORY_FILE = "dataset_info.json"
AXOLOTL_FILE = "axolotl.yaml"
DATASET_NAME = "deita_selection"
FOLDER = "path/of/this/folder"

# LLaMA-Factory's names for roles, and what it calls a role where no row has it.
TAGS: dict[str, tuple[Part, str]] = {
    "user_tag": ("user", "human"),
    "assistant_tag": ("assistant", "gpt"),
    "observation_tag": ("tool", "observation"),
    "function_tag": ("call", "function_call"),
    "system_tag": ("system", "system"),
}
IMPORTS = ["from datasets import load_dataset", "from trl import SFTConfig, SFTTrainer"]
IMPORTS_WITHOUT_NULLS = [
    "from datasets import Features, Json, List, load_dataset",
    "from trl import SFTConfig, SFTTrainer",
    "from trl.trainer.utils import remove_none_values",
]
# Any other type of messages would give the nulls back.
WITHOUT_NULLS = [
    'features = Features({**train.features, "messages": List(Json())})',
    "train = train.map(remove_none_values, features=features)",
]
SEVERAL_LAYOUTS = "the rows have several layouts: choose --output-format messages or sharegpt"
NO_LAYOUT = "it does not read this layout: choose --output-format messages or sharegpt"


class Misfit(Exception):
    """A trainer would read the subset wrongly; the message says why, and what to choose."""


class Recipe(NamedTuple):
    """How one trainer reads a subset.

    text: the file or lines for it; None if there are none. notes: sentences that explain them, or
    why there are none.
    """

    text: str | None
    notes: Sequence[str]


class Recipes(NamedTuple):
    """How each trainer reads a subset."""

    trl: Recipe
    llama_factory: Recipe
    axolotl: Recipe


def make_recipes(
    layout: Layout, data: str, mixed_columns: Sequence[str], adds_nulls: bool
) -> Recipes:
    """Return how each trainer reads a subset.

    data: its file, or the folder of its files. mixed_columns: its columns that `datasets` reads
    only from version 4.7. adds_nulls: whether turns are read with a null for each field that only
    other turns hold.
    """
    return Recipes(
        _attempt(_trl, layout, adds_nulls),
        _attempt(_llama_factory, layout, data, mixed_columns),
        _attempt(_axolotl, layout),
    )


def _attempt(make: Callable[..., Recipe], layout: Layout, *arguments: object) -> Recipe:
    """Return what `make` returns; a recipe without text, and the reason, if it raises Misfit."""
    try:
        return make(layout, *arguments)
    except Misfit as misfit:
        return Recipe(None, [f"There is nothing for it here: {misfit}."])


def _form(layout: Layout) -> Form:
    """Return the form of all rows. Raises Misfit if they have several, or one of no trainer."""
    if len(layout.forms) > 1:
        raise Misfit(SEVERAL_LAYOUTS)
    if layout.form is None or layout.form.kind == "other":
        raise Misfit(NO_LAYOUT)
    return layout.form


# ---- TRL


def _trl(layout: Layout, adds_nulls: bool) -> Recipe:
    """Return the lines of Python that train on the subset with TRL. Raises Misfit.

    adds_nulls: whether they have to remove nulls that the input does not have.
    """
    form = _form(layout)
    if form.kind == "turns" and not _is_chat(layout, form):
        raise Misfit(
            "TRL reads turns of role and content, and the roles of chat templates: choose "
            "--output-format messages"
        )
    if form.columns[0] == "instruction":
        raise Misfit("TRL reads no columns of this name: choose --output-format messages")
    tools = layout.column("tools")
    loss = "" if form.kind == "texts" else "assistant_only_loss=True"
    lines = [
        *(IMPORTS_WITHOUT_NULLS if adds_nulls else IMPORTS),
        "",
        *_trl_data(form, tools),
        *(WITHOUT_NULLS if adds_nulls else []),
        f"args = SFTConfig({loss})",
        'SFTTrainer("path/or/id/of/a/model", args=args, train_dataset=train).train()',
    ]
    notes = ["The other columns are left out, because TRL gives some names a meaning of its own."]
    if adds_nulls:
        notes.append("Chat templates take a field that is null for one that is there.")
    if tools or layout.calls:
        notes.append(
            "The chat template of the model must render tools and tool calls; TRL has templates "
            "for training of the common models."
        )
    return Recipe("\n".join(lines), notes)


def _trl_data(form: Form, tools: str | None) -> list[str]:
    """Return the lines that load the columns TRL reads, under the names it has for them."""
    columns = list(form.columns)
    names = ["messages"] if form.kind == "turns" else ["prompt", "completion"]
    if tools:
        columns.append(tools)
        names.append("tools")
    lines = [
        f'train = load_dataset("{FOLDER}", split="train")',
        f"train = train.select_columns({json.dumps(columns)})",
    ]
    for old, new in zip(columns, names, strict=True):
        if old != new:
            lines.append(f'train = train.rename_column("{old}", "{new}")')
    return lines


def _is_chat(layout: Layout, form: Form) -> bool:
    """Return whether all turns have the keys and the role names of chat templates."""
    if form.keys.role != "role" or layout.column("system") is not None:
        return False
    names = {name for row in layout.role_names for _, name in row.names}
    return names <= {"system", "developer", "user", "assistant", "tool"}


# ---- LLaMA-Factory


def _llama_factory(layout: Layout, data: str, mixed_columns: Sequence[str]) -> Recipe:
    """Return the subset's entry in dataset_info.json. Raises Misfit.

    data: the file of the subset. mixed_columns: those with values of several types.
    """
    form = _form(layout)
    if form.kind == "lists":
        raise Misfit(NO_LAYOUT)
    if layout.no_text or (layout.unread_calls and form.keys.role == "role"):
        raise Misfit(
            "LLaMA-Factory reads no tool calls and no images inside of turns: choose "
            "--output-format sharegpt"
        )
    if not layout.text_tools:
        raise Misfit("LLaMA-Factory reads tools as text: choose --output-format sharegpt")
    if mixed_columns:
        names = ", ".join(mixed_columns)
        raise Misfit(
            "the version of datasets that LLaMA-Factory uses reads no columns of several types "
            f"({names}): remove them from the pool, or choose another format"
        )
    entry: dict[str, JSON] = {"file_name": data}
    if form.kind == "turns":
        entry |= _sharegpt_entry(layout, form)
    else:
        entry |= _alpaca_entry(layout, form)
    text = json.dumps({DATASET_NAME: entry}, indent=2, ensure_ascii=False)
    notes = _llama_factory_notes(layout)
    return Recipe(f"{text}\n", notes)


def _sharegpt_entry(layout: Layout, form: Form) -> dict[str, JSON]:
    """Return how LLaMA-Factory reads lists of turns: their column, keys and names of roles."""
    names = layout.usual_names()
    tags: dict[str, JSON] = {"role_tag": form.keys.role, "content_tag": form.keys.text}
    for tag, (part, default) in TAGS.items():
        tags[tag] = names.get(part, default)
    columns: dict[str, JSON] = {"messages": form.columns[0]}
    columns |= _side_columns(layout)
    return {"formatting": "sharegpt", "columns": columns, "tags": tags}


def _alpaca_entry(layout: Layout, form: Form) -> dict[str, JSON]:
    """Return how LLaMA-Factory reads a prompt and a response in columns of their own."""
    prompt, response = form.columns
    columns: dict[str, JSON] = {"prompt": prompt, "response": response}
    columns |= _side_columns(layout)
    return {"formatting": "alpaca", "columns": columns}


def _side_columns(layout: Layout) -> dict[str, JSON]:
    """Return the columns of the system prompt and the like, and of images and the like."""
    columns: dict[str, JSON] = {}
    for use in ("query", "history", "system", "tools"):
        name = layout.column(use)
        if name is not None:
            columns[use] = name
    for kind, names in sorted(layout.media.items()):
        columns[f"{kind}s"] = min(names)
    return columns


def _llama_factory_notes(layout: Layout) -> list[str]:
    """Return how to use the file, and which rows or calls LLaMA-Factory passes over."""
    notes = [
        f"{LLAMA_FACTORY_FILE} describes the subset: set dataset_dir to this folder and dataset "
        f"to {DATASET_NAME}."
    ]
    skipped = skipped_by_llama_factory(layout)
    if skipped:
        notes.append(
            f"It skips {skipped:,} of the {layout.rows:,} rows: turns of a user or a tool must "
            "alternate with those of the assistant, which must have the last word."
        )
    if layout.unread_calls:
        notes.append(
            f"In {layout.unread_calls:,} rows it does not read a tool call that stands beside a "
            "text."
        )
    return notes


def skipped_by_llama_factory(layout: Layout) -> int:
    """Return the number of rows that LLaMA-Factory's sharegpt format leaves out, with a warning."""
    usual = layout.usual_names()
    readable = {part for part, _ in TAGS.values()}
    skipped = 0
    for row, count in layout.role_names.items():
        is_known = all(part in readable and usual[part] == name for part, name in row.names)
        if not row.alternate or not is_known:
            skipped += count
    return skipped


# ---- axolotl


def _axolotl(layout: Layout) -> Recipe:
    """Return the lines of axolotl's configuration that name the subset. Raises Misfit."""
    form = _form(layout)
    if form.kind == "lists":
        raise Misfit(NO_LAYOUT)
    if form.kind == "turns":
        entry = _chat_template_entry(layout, form)
    else:
        entry = _instruction_entry(layout, form)
    config = {"datasets": [{"path": FOLDER, "split": "train", **entry}]}
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    comment = "# For axolotl. Set path to where this folder lies.\n"
    note = f"The lines of {AXOLOTL_FILE} go into your configuration."
    return Recipe(comment + text, [note])


def _chat_template_entry(layout: Layout, form: Form) -> dict[str, JSON]:
    """Return how axolotl reads lists of turns. Raises Misfit for calls or tools as text."""
    parts = {part for row in layout.role_names for part, _ in row.names}
    has_text_tools = layout.column("tools") and layout.text_tools
    if "call" in parts or has_text_tools:
        raise Misfit(
            "axolotl trains on calls in the form of the chat template only from the field "
            "tool_calls, and reads tools only as a list: choose --output-format messages"
        )
    roles = _axolotl_roles(layout)
    entry: dict[str, JSON] = {
        "type": "chat_template",
        "field_messages": form.columns[0],
        "message_property_mappings": {"role": form.keys.role, "content": form.keys.text},
        "roles": roles,
        "roles_to_train": ["assistant"],
    }
    if all(names == [role] for role, names in roles.items()):
        del entry["roles"]
    for use in ("system", "tools"):
        name = layout.column(use)
        if name is not None:
            entry[f"field_{use}"] = name
    return entry


def _axolotl_roles(layout: Layout) -> dict[str, list[str]]:
    """Return the names of roles in the subset, by the role that the chat template gets."""
    roles: dict[str, set[str]] = defaultdict(set)
    for row in layout.role_names:
        for part, name in row.names:
            role = "system" if part == "developer" else part
            roles[role].add(name)
    return {role: sorted(names) for role, names in sorted(roles.items())}


def _instruction_entry(layout: Layout, form: Form) -> dict[str, JSON]:
    """Return how axolotl reads a prompt and a response in columns of their own.

    Raises Misfit if the rows have a history or tools.
    """
    if layout.column("history") or layout.column("tools"):
        raise Misfit(
            "axolotl reads neither history nor tools of this layout: choose --output-format "
            "messages"
        )
    prompt, response = form.columns
    query = layout.column("query")
    system = layout.column("system")
    is_alpaca = form.columns == ("instruction", "output") and query in (None, "input")
    if is_alpaca and system in (None, "system"):
        return {"type": "alpaca_w_system" if system else "alpaca"}
    kind: dict[str, JSON] = {
        "field_instruction": prompt,
        "field_input": query or "",
        "field_output": response,
        "field_system": system or "",
        "format": "{instruction}\n{input}\n",
        "no_input_format": "{instruction}\n",
    }
    return {"type": kind}


def files_of(recipes: Recipes) -> Mapping[str, str]:
    """Return the files that trainers read beside the subset, by name."""
    texts = {LLAMA_FACTORY_FILE: recipes.llama_factory.text, AXOLOTL_FILE: recipes.axolotl.text}
    return {name: text for name, text in texts.items() if text is not None}
