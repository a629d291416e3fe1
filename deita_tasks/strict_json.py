"""JSON: values, records, their digests, and strict JSON text."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from pydantic import BaseModel, ConfigDict, model_validator

# In the file of a record: the digest of its other fields.
DIGEST_FIELD = "content_digest"

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"


class JsonRecord(BaseModel):
    """Base class of records that cross a task's border or lie in a JSON file.

    Frozen; unknown fields are refused. `to_dict` and `model_validate` are inverse, and so are
    `to_file_fields` and `model_validate`.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        protected_namespaces=(),
        populate_by_name=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _check_content_digest(cls, fields: Any) -> Any:
        """Compare the digest of a file's other fields; a file of an early version has none.

        Damage cannot hide a digest: what is left of its name would be an unknown field.
        """
        if not isinstance(fields, dict) or DIGEST_FIELD not in fields:
            return fields
        content = {name: value for name, value in fields.items() if name != DIGEST_FIELD}
        if fields[DIGEST_FIELD] != digest_of(content):
            raise ValueError("its content is not what its digest stands for")
        return content

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON values, under the names that the file has."""
        return self.model_dump(mode="json", by_alias=True)

    def to_file_fields(self) -> dict[str, Any]:
        """Return the record as JSON values for a file: with the digest of its content."""
        fields = self.to_dict()
        return {**fields, DIGEST_FIELD: digest_of(fields)}


def digest_of(value: Any) -> str:
    """Return 32 hex digits that name a JSON value.

    Equal for equal values in any order of names.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:32]


def strict_json(value: JSON) -> str:
    """Return `value` as JSON text that UTF-8 can encode.

    NaN and the infinities, which JSON does not have, become null. If a text holds a lone surrogate,
    which UTF-8 cannot encode, all characters outside ASCII are written as \\u escapes.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except ValueError:
        value = replace_non_finite(value)
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if is_encodable(text):
        return text
    return json.dumps(value, allow_nan=False)


def is_encodable(text: str) -> bool:
    """Return whether UTF-8 can encode `text`."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def replace_non_finite(value: JSON) -> JSON:
    """Return `value` with null in place of NaN and the infinities."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: replace_non_finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [replace_non_finite(item) for item in value]
    return value
