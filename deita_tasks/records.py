"""The records in which the stages meet; their invariants hold from the constructor on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, get_args, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = get_args(Role)

ScoreKind = Literal["complexity", "quality"]
SCORE_KINDS: tuple[ScoreKind, ...] = get_args(ScoreKind)

QuarantineReason = Literal[
    # not JSON, a CSV line with other columns than its header, a JSON value that is not an object
    "malformed_row",
    "missing_field",  # the format's column is absent or null
    "unknown_role",
    "empty_conversation",  # no turns, or no text in any of them
    "no_user_turn",
    "not_text",  # a content, a role or an instruction that is not a string
    "invalid_utf8",
    "nul_byte",
    "lone_surrogate",
    "too_long",  # a single row over the loader's size limit
]

Reason = Literal["too_similar", "below_budget", "unscorable"]


@dataclass(frozen=True, slots=True)
class Turn:
    """One message: `role` in system | user | assistant | tool, `content` any text."""

    role: Role
    content: str

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"role {self.role!r}: expected one of {', '.join(ROLES)}")
        if not isinstance(self.content, str):
            raise TypeError(f"content of type {type(self.content).__name__}: expected str")


class Pair(NamedTuple):
    """What a scorer reads of one user turn: its text, and the next assistant turn's text or ""."""

    instruction: str
    response: str


class SourceRow(NamedTuple):
    """Where a row stood: the file's URI and its 1-based row (the line, for files of lines)."""

    uri: str
    row: int


NOWHERE = SourceRow("", 0)


def content_id(turns: Iterable[Turn]) -> str:
    """First 32 hex digits of sha256 over the canonical JSON (RFC 8785) of [[role, content], ...],
    in UTF-8.
    """
    canonical = json.dumps(
        [[turn.role, turn.content] for turn in turns], ensure_ascii=False, separators=(",", ":")
    )
    return hashlib.sha256(canonical.encode("utf-8")).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Conversation:
    """A row of the pool.

    `turns` is never empty. `source` is where the row stood. `extra` holds every other column of the
    input row, as JSON values, for the export. `id` follows from the text (`content_id`), so equal
    texts have equal ids wherever they come from.
    """

    turns: tuple[Turn, ...]
    source: SourceRow = NOWHERE
    extra: Mapping[str, Any] = field(default_factory=dict)
    id: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "turns", tuple(self.turns))
        if not self.turns:
            raise ValueError("a conversation without turns: expected at least one")
        if not self.id:
            object.__setattr__(self, "id", content_id(self.turns))

    @property
    def pairs(self) -> list[Pair]:
        """One Pair per user turn, by role and never by position; system and tool turns are skipped.

        The response is the first assistant turn before the next user turn, or "".
        (The original pairs turns 2i and 2i+1, so a leading system turn shifts every pair.)
        """
        pairs: list[Pair] = []
        instruction: str | None = None
        for turn in self.turns:
            if turn.role == "user":
                if instruction is not None:
                    pairs.append(Pair(instruction, ""))
                instruction = turn.content
            elif turn.role == "assistant" and instruction is not None:
                pairs.append(Pair(instruction, turn.content))
                instruction = None
        if instruction is not None:
            pairs.append(Pair(instruction, ""))
        return pairs


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A row that could not become a Conversation: where it stood, why, and what it was (`raw`,
    undecodable bytes escaped).
    """

    source: SourceRow
    reason: QuarantineReason
    detail: str
    raw: str


@dataclass(frozen=True)
class ModelOutput:
    """What a scorer or an embedder says of n inputs.

    values: float32 (n,) scores in [1, 6], or float32 (n, d) vectors; NaN in the rows named in
    `problems`. truncated_tokens: int32 (n,), tokens that did not fit the model's window; 0 where the whole text
    was read. problems: position -> why this one input has no value. Nothing is imputed.
    """

    values: NDArray[np.float32]
    truncated_tokens: NDArray[np.int32]
    problems: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.values.dtype != np.float32 or self.truncated_tokens.shape != self.values.shape[:1]:
            raise ValueError(
                f"values {self.values.dtype} {self.values.shape} with cut {self.truncated_tokens.shape}: "
                "expected float32 values and one cut count for each of their rows"
            )


@dataclass(frozen=True)
class Forecast:
    """What a component can say of n conversations before its model is loaded; None where it has
    none of it.

    window: tokens that its model reads. digit_ids: the token ids of "1" to "6". tokens: int64 (n,),
    what a model would read of each conversation, all its prompts together. truncated_tokens: int64 (n,), what it
    would leave out.
    """

    window: int | None = None
    digit_ids: Sequence[int] | None = None
    tokens: NDArray[np.int64] | None = None
    truncated_tokens: NDArray[np.int64] | None = None


class Rejection(NamedTuple):
    """Why a row was not kept; for "too_similar", the kept row that blocked it and the similarity
    (else "" and NaN).
    """

    id: str
    reason: Reason
    nearest_id: str = ""
    similarity: float = float("nan")


@runtime_checkable
class RejectionColumns(Protocol):
    """Rejections that can be had by columns."""

    def columns(self) -> Mapping[str, Any]:
        """Arrow arrays by the names of Rejection's fields."""
        ...


@dataclass(frozen=True)
class SelectorResult:
    """`kept`: ids in the order chosen. `rejected`: one Rejection for every other id, in evol-score
    order.

    A strategy may give `rejected` as any Sequence: over a large pool, as one that makes its
    Rejections on demand, and all of them at once as `Columns`.
    """

    kept: Sequence[str]
    rejected: Sequence[Rejection]
