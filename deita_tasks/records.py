"""The records that the stages exchange. Constructors check them, so every instance is valid."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, get_args, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from deita_tasks.decisions import RejectionReason
from deita_tasks.strict_json import JSON

if TYPE_CHECKING:
    import pyarrow as pa

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = get_args(Role)

ScoreKind = Literal["complexity", "quality"]
SCORE_KINDS: tuple[ScoreKind, ...] = get_args(ScoreKind)

QuarantineReason = Literal[
    "malformed_row",  # invalid JSON, not an object, or a CSV line that does not match its header
    "missing_field",  # a required column is absent or null
    "unknown_role",
    "empty_conversation",  # no turns, or none of them has text
    "no_user_turn",
    "not_text",  # a text, a role or an instruction that is not a string
    "invalid_utf8",
    "nul_byte",
    "lone_surrogate",
    "too_long",  # larger than the loader's limit for one row
]

# The extra column that holds what an input turn has beside its role and text (tool_calls, name,
# weight, a more specific role name): a list with one object or null per turn.
TURN_FIELDS = "turn_fields"


class TurnKeys(NamedTuple):
    """The names under which a turn object holds its role and its text."""

    role: str
    text: str


SHAREGPT_KEYS = TurnKeys("from", "value")
CHAT_KEYS = TurnKeys("role", "content")


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation. `content` may be any text, also an empty one."""

    role: Role
    content: str

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"role {self.role!r}: expected one of {', '.join(ROLES)}")
        if not isinstance(self.content, str):
            raise TypeError(f"content of type {type(self.content).__name__}: expected str")


class Pair(NamedTuple):
    """One user turn as a scorer reads it: its text and the assistant's answer, "" if none."""

    instruction: str
    response: str


class SourceRow(NamedTuple):
    """Where a row comes from: the file's URI and its 1-based row (the line in line-based files)."""

    uri: str
    row: int


NOWHERE = SourceRow("", 0)


def content_id(turns: Iterable[Turn]) -> str:
    """Return the id of a conversation, which depends on its text alone.

    It is the first 32 hex digits of the SHA-256 of the UTF-8 bytes of the canonical JSON (RFC 8785)
    of [[role, content], ...].
    """
    canonical = json.dumps(
        [[turn.role, turn.content] for turn in turns], ensure_ascii=False, separators=(",", ":")
    )
    return hashlib.sha256(canonical.encode("utf-8")).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation of the pool.

    `turns` is never empty. `extra` holds all other columns of the input row, for the export. `id`
    is the `content_id` of the turns, so equal conversations have equal ids, whatever their source.
    """

    turns: tuple[Turn, ...]
    source: SourceRow = NOWHERE
    extra: Mapping[str, JSON] = field(default_factory=dict)
    id: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "turns", tuple(self.turns))
        if not self.turns:
            raise ValueError("a conversation without turns: expected at least one turn")
        if not self.id:
            object.__setattr__(self, "id", content_id(self.turns))

    @property
    def pairs(self) -> list[Pair]:
        """One Pair per user turn, by role; system and tool turns are skipped.

        The response is the first assistant turn before the next user turn, or "" if there is none.
        (The original DEITA code pairs turns 2i and 2i+1, so a leading system turn shifts them all.)
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
    """A row that could not become a Conversation.

    `raw` is the beginning of the row as it is in the file, with undecodable bytes escaped.
    """

    source: SourceRow
    reason: QuarantineReason
    detail: str
    raw: str


@dataclass(frozen=True)
class ModelOutput:
    """The scores or vectors of n inputs. Nothing is imputed.

    values: float32 (n,) scores in [1, 6], or float32 (n, d) vectors; NaN in the rows of `problems`.
    truncated_tokens: int32 (n,), the tokens that did not fit the model's window; 0 if it read the
    whole text. problems: why an input has no value, by the input's position.
    """

    values: NDArray[np.float32]
    truncated_tokens: NDArray[np.int32]
    problems: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.values.dtype != np.float32 or self.truncated_tokens.shape != self.values.shape[:1]:
            raise ValueError(
                f"values {self.values.dtype} {self.values.shape} with truncated_tokens "
                f"{self.truncated_tokens.shape}: expected float32 values and one count of "
                "truncated tokens per row"
            )


@dataclass(frozen=True)
class Forecast:
    """What a component knows about n conversations before it loads its model; None if unknown.

    window: the most tokens that the model reads. digit_ids: the token ids of "1" to "6". tokens:
    int64 (n,), the tokens that the model would read of each conversation, over all its prompts.
    truncated_tokens: int64 (n,), the tokens that it would leave out.
    """

    window: int | None = None
    digit_ids: Sequence[int] | None = None
    tokens: NDArray[np.int64] | None = None
    truncated_tokens: NDArray[np.int64] | None = None


class Rejection(NamedTuple):
    """Why a row was not kept.

    `nearest_id` and `similarity` name the kept row that blocked a "too_similar" row, and their
    similarity; "" and NaN for the other reasons.
    """

    id: str
    reason: RejectionReason
    nearest_id: str = ""
    similarity: float = float("nan")


@runtime_checkable
class RejectionColumns(Protocol):
    """A sequence of Rejections that can also return them as columns."""

    def columns(self) -> Mapping[str, pa.Array]:
        """Return one Arrow array per field of Rejection, by field name."""
        ...


@dataclass(frozen=True)
class SelectorResult:
    """The outcome of a selection strategy.

    kept: ids in the order in which they were selected. rejected: one Rejection for every other id,
    in evol-score order. For large pools `rejected` may be a sequence that builds its items on
    demand, and all of them at once as RejectionColumns.
    """

    kept: Sequence[str]
    rejected: Sequence[Rejection]
