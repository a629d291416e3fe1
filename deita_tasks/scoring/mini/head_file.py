"""The file of a head: the packaged one, or one that was fitted to scores of the user's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from deita_tasks import storage
from deita_tasks.errors import MissingFile, ModelError, UsageError
from deita_tasks.records import ScoreKind
from deita_tasks.scoring.mini.encoder import LAYERS, MiniEncoder
from deita_tasks.scoring.mini.features import instruction_features, response_features
from deita_tasks.scoring.mini.head import DifficultyJudge, Head

STATES = len(LAYERS) * MiniEncoder.WIDTH  # numbers that the encoder gives for a text


class HeadFile(NamedTuple):
    """A head, and the digest of the bytes that it was read from."""

    head: Head
    sha256: str


def head_file_name(kind: ScoreKind) -> str:
    """Return the name of a head's file in its folder, which has one for each kind."""
    return f"{kind}.safetensors"


def feature_names(kind: ScoreKind) -> list[str]:
    """Return the names of the features of a head of this kind, in the order of its arrays."""
    features = response_features("", "") if kind == "quality" else instruction_features("")
    return list(features)


def read_head(folder: str, kind: ScoreKind) -> HeadFile:
    """Return the head of a folder, local or on S3.

    Raises UsageError if the folder has none of this kind, ModelError if the file holds something
    else.
    """
    uri = storage.join(folder, head_file_name(kind))
    try:
        with storage.open_read(uri) as file:
            content = file.read()
    except MissingFile as error:
        raise UsageError(
            f"head={folder!r}: holds no {head_file_name(kind)}; expected the output folder of "
            f"`deita train-scorer --head mini --kind {kind}`"
        ) from error
    return HeadFile(_parse(uri, content, kind), hashlib.sha256(content).hexdigest())


def _parse(uri: str, content: bytes, kind: ScoreKind) -> Head:
    """Return the head in a file's content. `uri`: for messages.

    Raises ModelError for the content of another file, and for a head of the other kind or of a
    version with other features or shapes.
    """
    from safetensors import SafetensorError

    try:
        head = Head.from_bytes(content)
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ModelError(
            f"{uri}: is no head of the scorer mini ({error}); fit it again, or copy it again"
        ) from error
    if problem := _find_problem(head, kind):
        raise ModelError(f"{uri}: {problem}; fit it again with this version")
    return head


def _find_problem(head: Head, kind: ScoreKind) -> str | None:
    """Return what is wrong with a head, None if nothing is.

    Its features must be those of this version, by name and order; only complexity has a judge.
    """
    if list(head.names) != feature_names(kind):
        return f"reads other features than {kind} has"
    if (head.judge is None) != (kind == "quality"):
        return f"has {'no' if head.judge is None else 'a'} judge, unlike a head for {kind}"
    features, number = (len(head.names),), (1,)
    shapes = dict.fromkeys(("mean", "scale", "counted"), features)
    shapes |= dict.fromkeys(("counted_offset", "middle", "spread"), number)
    problem = _wrong_array(head, shapes)
    if problem is None and head.judge is not None:
        return _wrong_judge(head.judge, len(head.names))
    return problem


def _wrong_judge(judge: DifficultyJudge, features: int) -> str | None:
    """Return what is wrong with a judge's arrays, None if nothing is.

    `features`: how many the head has. Any number of examples will do; `weights` sets it.
    """
    shapes: dict[str, tuple[int, ...]] = {
        "mean": (STATES,),
        "scale": (STATES,),
        "examples": (judge.weights.size, features + STATES),
        "weights": (judge.weights.size,),
        "width": (1,),
        "offset": (1,),
    }
    return _wrong_array(judge, shapes)


def _wrong_array(part: object, shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """Return what is wrong with the first array of another shape, or that is not finite."""
    for name, shape in shapes.items():
        values = getattr(part, name)
        if values.shape != shape:
            return f"{name} has the shape {values.shape}; expected {shape}"
        if not np.isfinite(values).all():
            return f"{name} holds numbers that are not finite"
    return None
