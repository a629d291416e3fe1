"""No text can act on a terminal: not its title, colours, cursor, or the order of its letters."""

from __future__ import annotations

import io
import logging
import re

import pytest
from rich.table import Table
from rich.text import Text

from deita_tasks import progress
from deita_tasks.terminal import UNSAFE, SafeConsole, escape
from flows.cli.printing import guard_log

EVIL = "a\x1b]0;owned\x07b\x1b[31mred\x9b1mc\u202egnp.exe\x08\rd"
SHOWN = r"a\x1b]0;owned\x07b\x1b[31mred\x9b1mc\u202egnp.exe\x08\x0dd"
OWN_STYLES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")  # of Rich, whose texts have no escape left


def test_readable_escapes_and_nothing_else() -> None:
    assert escape(EVIL) == SHOWN
    assert escape("é 日本 😀\n\tx\r\n") == "é 日本 😀\n\tx\n"


@pytest.mark.parametrize("terminal", [True, False])
def test_a_console_escapes_whatever_it_prints(terminal: bool) -> None:
    written = io.StringIO()
    console = SafeConsole(file=written, force_terminal=terminal, width=200)
    table = Table(EVIL, title=EVIL)
    table.add_row(EVIL)
    table.add_row(Text(EVIL, style="bold red"))
    console.print(EVIL)
    console.print(Text(EVIL), table)
    text = OWN_STYLES.sub("", written.getvalue())
    assert UNSAFE.search(text) is None
    assert text.count(SHOWN) == 4
    assert text.count("owned") == 6
    assert (written.getvalue() != text) is terminal


def test_what_others_print_beside_a_progress_bar_is_escaped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = io.StringIO()
    monkeypatch.setattr(written, "isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", written)
    with progress.bar(EVIL, 10) as advance:
        advance(1)
    assert UNSAFE.search(OWN_STYLES.sub("", written.getvalue()).replace("\r", "")) is None
    assert "owned" in written.getvalue()


def test_log_records_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    logger = logging.Logger("a library's")
    logger.addHandler(logging.StreamHandler(written))
    before = logging.getLogRecordFactory()
    try:
        guard_log()
        logger.warning("skipped: %s", EVIL)
        logger.warning("no such bucket: %s", "s3://me:secret/x@bucket")
    finally:
        logging.setLogRecordFactory(before)
    assert written.getvalue() == f"skipped: {SHOWN}\nno such bucket: s3://***@bucket\n"


def test_a_log_call_with_wrong_arguments_ends_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """A library may have one; logging itself prints what is wrong, and goes on."""
    logger = logging.Logger("a library's")
    logger.addHandler(logging.StreamHandler(io.StringIO()))
    before = logging.getLogRecordFactory()
    try:
        guard_log()
        logger.warning("%d rows", "three")
    finally:
        logging.setLogRecordFactory(before)
    assert "--- Logging error ---" in capsys.readouterr().err
