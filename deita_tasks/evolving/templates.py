"""The prompts that rewrite and judge texts: files, which a user may replace one by one.

A template may hold {instruction}, {response}, {texts} and {code}; other braces are written twice.
`code` is a digest of the texts, so that no text can close the tags around it.
"""

from __future__ import annotations

import hashlib
import string
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from deita_tasks import storage
from deita_tasks.errors import UsageError
from deita_tasks.records import ScoreKind
from deita_tasks.strict_json import strict_json

# Complexity: the four ways to go in depth (section 2.3). Quality: the five sides of a response
# (section 2.4).
METHODS: Mapping[ScoreKind, tuple[str, ...]] = {
    "complexity": ("constraint", "deepening", "concretising", "reasoning"),
    "quality": ("helpfulness", "relevance", "depth", "creativity", "detail"),
}
JUDGE = "judge"
CODE_LENGTH = 16  # hex digits
FIELDS: Mapping[str, frozenset[str]] = {
    "complexity": frozenset({"instruction"}),
    "quality": frozenset({"instruction", "response"}),
    JUDGE: frozenset({"texts"}),
}


class Templates(NamedTuple):
    """The prompts for one kind of score: `rewrite` by method, and the judge's."""

    kind: ScoreKind
    rewrite: Mapping[str, str]
    judge: str

    @property
    def rewrite_fingerprint(self) -> str:
        """A digest of the prompts that rewrite."""
        return storage.digest_of(dict(self.rewrite))

    @property
    def judge_fingerprint(self) -> str:
        """A digest of the judge's prompt."""
        return storage.digest_of(self.judge)


def load_templates(kind: ScoreKind, folder: str | None = None) -> Templates:
    """Return the prompts for `kind`; a file in `folder` replaces ours of the same name.

    Raises UsageError for a folder without such a file, or a template without its fields.
    """
    names = [f"{kind}_{name}.txt" for name in (*METHODS[kind], JUDGE)]
    own = _read_folder(folder, names) if folder is not None else {}
    texts = {name: own[name] if name in own else _read_packaged(name) for name in names}
    for name, text in texts.items():
        is_judge = name.endswith(f"_{JUDGE}.txt")
        _check_fields(name, text, FIELDS[JUDGE if is_judge else kind])
    rewrite = {method: texts[f"{kind}_{method}.txt"] for method in METHODS[kind]}
    return Templates(kind, rewrite, texts[f"{kind}_{JUDGE}.txt"])


def _read_packaged(name: str) -> str:
    """Return the text of a template that comes with the package."""
    file = resources.files("deita_tasks.evolving").joinpath("prompts", name)
    return file.read_text(encoding="utf-8")


def _read_folder(folder: str, names: list[str]) -> dict[str, str]:
    """Return the templates in a user's folder, by file name: those of `names` that are there.

    Raises UsageError if there is none, or one is not UTF-8 text.
    """
    paths = {name: Path(folder, name) for name in names}
    try:
        found = {
            name: path.read_text(encoding="utf-8") for name, path in paths.items() if path.is_file()
        }
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"prompts = {folder!r}: cannot be read as text ({error})") from None
    if not found:
        raise UsageError(
            f"prompts = {folder!r}: has none of the templates; expected one or more of "
            f"{', '.join(names)}"
        )
    return found


def _check_fields(name: str, text: str, expected: frozenset[str]) -> None:
    """Raise UsageError unless a template has all `expected` fields, and no other but {code}."""
    try:
        fields = {field for _, field, _, _ in string.Formatter().parse(text) if field is not None}
    except ValueError as error:
        raise UsageError(
            f"{name}: {error}; write a brace that is no field twice, as {{{{"
        ) from None
    allowed = expected | {"code"}
    if not (expected <= fields <= allowed):
        names = ", ".join(f"{{{field}}}" for field in sorted(expected))
        found = ", ".join(f"{{{field}}}" for field in sorted(fields)) or "none"
        raise UsageError(
            f"{name}: has the fields {found}; expected {names}, and {{code}} if wanted"
        )


def text_code(*texts: str) -> str:
    """Return the code of the tags around `texts`, hexadecimal digits of their digest.

    A text cannot hold its own digest, so it cannot close its tag.
    """
    return hashlib.sha256(strict_json(list(texts)).encode()).hexdigest()[:CODE_LENGTH]


def fill(template: str, fields: Mapping[str, str]) -> str:
    """Return a template with its fields; braces in the fields have no meaning."""
    parts: list[str] = []
    for literal, field, _, _ in string.Formatter().parse(template):
        parts.append(literal)
        if field is not None:
            parts.append(fields[field])
    return "".join(parts)


def literals(template: str) -> str:
    """Return a template's own words, without what its fields are filled with."""
    return " ".join(literal for literal, _, _, _ in string.Formatter().parse(template))
