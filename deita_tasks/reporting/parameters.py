"""The parameters of a run as a report shows them: what applied, and who chose it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

from pydantic.fields import FieldInfo

from deita_tasks import config
from deita_tasks.manifest import ResultManifest
from deita_tasks.presets import PRESETS, Preset, Spec
from deita_tasks.reporting.composition import shorten
from deita_tasks.strict_json import strict_json

Origin: TypeAlias = Literal["yours", "preset", "default"]

# By the name of a flow's parameter.
GROUPS: Mapping[str, type[config.Group]] = {
    "source": config.Source,
    "scoring": config.Scoring,
    "embedding": config.Embedding,
    "filtering": config.Filtering,
    "selection": config.Selection,
    "export": config.Export,
    "grid": config.Grid,
    "output": config.Output,
    "advanced": config.Advanced,
    "comparison": config.Comparison,
    "training": config.Training,
    "measures": config.Measures,
}
VALUE_CHARACTERS = 400
NOT_SET = "not set"


class Parameter(NamedTuple):
    """A parameter as "group.field", its value as text, and who chose it."""

    name: str
    value: str
    origin: Origin


class Parameters(NamedTuple):
    """The parameters that the user or the preset chose, and all others."""

    chosen: list[Parameter]
    unset: list[Parameter]


class ModelUse(NamedTuple):
    """What a stage computed with: a component's name, and its model's if it has one."""

    stage: str
    component: str
    model: str


def explain_parameters(manifest: ResultManifest) -> Parameters:
    """Return every parameter of a run with the value that applied.

    A value that differs from the field's default is the user's. An empty field takes the preset's
    value, or else the component's, as far as the fingerprints state it.
    """
    parameters = []
    for group, fields in manifest.parameters.items():
        if not isinstance(fields, Mapping):
            parameters.append(Parameter(group, _text(fields), "yours"))
            continue
        for name, value in fields.items():
            applied, origin = _explain(manifest, group, name, value)
            parameters.append(Parameter(f"{group}.{name}", _text(applied), origin))
    chosen = [parameter for parameter in parameters if parameter.origin != "default"]
    unset = [parameter for parameter in parameters if parameter.origin == "default"]
    return Parameters(chosen, unset)


def list_models(manifest: ResultManifest) -> list[ModelUse]:
    """Return what each stage computed its values with."""
    uses = []
    for stage, fingerprint in manifest.fingerprints.items():
        if fingerprint and "backend" in fingerprint:
            model = fingerprint.get("model") or ""
            uses.append(ModelUse(stage, str(fingerprint["backend"]), str(model)))
    return uses


def _explain(manifest: ResultManifest, group: str, name: str, value: Any) -> tuple[Any, Origin]:
    """Return the value of a field that applied, and who chose it."""
    field = _field(group, name)
    if value is not None:
        default = None
        if field is not None:
            default = field.get_default(call_default_factory=True)
        return value, "default" if value == default else "yours"
    preset_name = getattr(manifest, "preset", None)
    preset = PRESETS.get(preset_name or "")
    if field is None or preset is None:
        return None, "default"
    if group != "selection":
        return _component_value(manifest, preset, name, field)
    applied = _fingerprint(manifest, "selection").get(name)
    if name == "max_similarity" and applied == preset.max_similarity:
        return applied, "preset"
    return applied, "default"


def _component_value(
    manifest: ResultManifest, preset: Preset, name: str, field: FieldInfo
) -> tuple[Any, Origin]:
    """Return the value of an empty field of a component: its name, or one of its options."""
    specs: Mapping[str, Spec] = {
        "complexity": preset.complexity,
        "quality": preset.quality,
        "embedding": preset.embedding,
    }
    if name in specs:
        return specs[name]["name"], "preset"
    for marker in field.metadata:
        if isinstance(marker, config.ComponentOption) and marker.component in specs:
            spec = specs[marker.component]
            fingerprint = _fingerprint(manifest, marker.component)
            applied = fingerprint.get(marker.name)
            default = spec["options"].get(marker.name)
            is_of_preset = fingerprint.get("backend") == spec["name"]
            if is_of_preset and default is not None and applied == default:
                return applied, "preset"
            return applied, "default"
    return None, "default"


def _fingerprint(manifest: ResultManifest, stage: str) -> Mapping[str, Any]:
    """Return the fingerprint of a stage; {} for one that did not run."""
    return manifest.fingerprints.get(stage) or {}


def _field(group: str, name: str) -> FieldInfo | None:
    """Return the field of a group of parameters; None for one of an older version."""
    if group not in GROUPS:
        return None
    fields = GROUPS[group].model_fields
    return fields.get(name) or config.Versions.model_fields.get(name)


def _text(value: Any) -> str:
    """Return a value as a table shows it."""
    if value is None:
        return NOT_SET
    text = value if isinstance(value, str) else strict_json(value)
    return shorten(text, VALUE_CHARACTERS)
