"""Which scorers a trained one is measured beside: by name, by folder, or as a checkpoint."""

from __future__ import annotations

from typing import Any

from deita_tasks import storage
from deita_tasks.catalogue import SCORERS
from deita_tasks.components import component_class
from deita_tasks.errors import UsageError
from deita_tasks.presets import Spec
from deita_tasks.records import SCORE_KINDS, ScoreKind
from deita_tasks.scoring import load_scorer
from deita_tasks.scoring.mini.head_file import head_file_name


def scorer_beside(kind: ScoreKind, name: str, device: str) -> Spec:
    """Return a scorer to measure beside the trained one; loads no model.

    name: of a scorer that needs no options, a folder with a head of mini, or a checkpoint as
    causal_lm takes it. Raises UsageError for a scorer that cannot be used so.
    """
    spec = _spec(kind, name, device)
    try:
        load_scorer(spec["name"], **spec["options"])
    except UsageError as error:
        raise UsageError(f"beside = {name!r}: {error}") from None
    return spec


def _spec(kind: ScoreKind, name: str, device: str) -> Spec:
    own: dict[str, Any] = {"kind": kind, "device": device}
    if name == "provided":
        raise UsageError("beside = 'provided': has scores of an input's rows, not of new texts")
    if name in SCORERS:
        known = component_class(SCORERS, "scorer", name).model_fields
        chosen = {option: value for option, value in own.items() if option in known}
        return {"name": name, "options": chosen}
    if any(storage.exists(storage.join(name, head_file_name(each))) for each in SCORE_KINDS):
        return {"name": "mini", "options": {**own, "head": name}}
    return {"name": "causal_lm", "options": {**own, "model": name}}
