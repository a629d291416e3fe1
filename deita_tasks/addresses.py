"""Passwords in addresses, which belong in no parameter, message or log."""

from __future__ import annotations

import re
from typing import Any

# user:password@ after the scheme. A secret key of AWS may hold a slash; a port is no password.
_CREDENTIALS = re.compile(r"://[^/@\s]*:(?!\d+/)[^@\s]*@")
NO_CREDENTIALS = r"^(?![\s\S]*://[^/@\s]*:(?!\d+/)[^@\s]*@)"  # the same for a JSON schema


def without_password(text: str) -> str:
    """Return `text` with *** in place of the user and password of each address in it."""
    return _CREDENTIALS.sub("://***@", text)


def check_no_password(value: Any) -> Any:
    """Return `value`, a text or a list of texts. Raises ValueError for a password in one."""
    texts = value if isinstance(value, list | tuple) else [value]
    if any(isinstance(text, str) and _CREDENTIALS.search(text) for text in texts):
        raise ValueError(
            "a password in the address; remove it, and set the credentials in the environment: "
            "AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for S3, api_key_env for a "
            "model server"
        )
    return value
