"""Jinja templates, and texts that are safe in Markdown."""

from __future__ import annotations

import html
import re
from typing import Any

import jinja2

# Control characters, line separators, bidirectional overrides and surrogates.
_INVISIBLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_MARKUP = re.compile(r"([\\`*_\[\]#|~!])")


def template_environment(package: str, **options: Any) -> jinja2.Environment:
    """Return a Jinja environment for the folder `templates` of `package`.

    `options`: further options of jinja2.Environment. An undefined name in a template is an error.
    """
    return jinja2.Environment(
        loader=jinja2.PackageLoader(package),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        **options,
    )


def one_line(text: str) -> str:
    """Return `text` on one line, without characters that act instead of being visible.

    Every run of white space and of such characters becomes one space.
    """
    return " ".join(_INVISIBLE.sub(" ", text).split())


def escape_markdown(text: str) -> str:
    """Return `text` on one line, so that Markdown takes nothing in it for markup, links or HTML."""
    return _MARKUP.sub(r"\\\1", html.escape(one_line(text), quote=False))
