"""Results that somebody with access to a shared store may leave there, to run code elsewhere."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

KEY = "load-pool-" + "0" * 32


def prefect_record(value: Any, **serializer: Any) -> dict[str, Any]:
    """What Prefect hands over, and what it expects back."""
    metadata = {"storage_key": KEY, "serializer": {"type": "json", **serializer}}
    return {"metadata": metadata, "result": json.dumps(value)}


def call_of(trap: Path) -> dict[str, Any]:
    """What Prefect's own decoder would run: a call that makes a file."""
    return {"__class__": "subprocess.getoutput", "data": {"cmd": f"touch {trap}"}}


def planted(trap: Path) -> Iterator[tuple[str, Any]]:
    """Files that somebody with access to the store may leave, each by what it tries."""
    pickled = base64.encodebytes(f"cbuiltins\nopen\n(V{trap}\nVw\ntR.".encode()).decode()
    yield "pickle", prefect_record(0, type="pickle", picklelib="pickle") | {"result": pickled}
    yield "default decoder", prefect_record(call_of(trap))
    yield "named decoder", prefect_record(str(trap), object_decoder="builtins.print")
    yield "named library", prefect_record(str(trap), jsonlib="antigravity")
    yield "compressed", prefect_record(0, type="compressed/pickle")
    yield "class", {"value": call_of(trap)}
    yield "class inside", {"value": {"rows": [{"deep": call_of(trap)}]}}
    yield "exception", {"value": {"__exc_type__": "builtins.SystemExit", "message": "0"}}
    yield "more fields", {"value": {"rows": 1}, "metadata": {"serializer": {"type": "json"}}}
    yield "no object", {"value": 3}
    yield "a list", []
    yield "changed", {"value": {"rows": 1}, "content_digest": "0" * 32}
