"""Write the reference of the command line from what `deita` itself says.

python docs/generate_cli.py          # writes docs/reference/cli.md
python docs/generate_cli.py --print  # prints the page instead
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference" / "cli.md"
COLUMNS = 80
COMMANDS = (
    "",
    "select",
    "reselect",
    "sweep",
    "solve",
    "align",
    "compare",
    "train-scorer",
    "preflight",
    "explain",
    "check",
    "explore",
    "store",
    "store ls",
    "store du",
    "store gc",
    "store verify",
    "store compact",
    "versions",
    "versions ls",
    "versions diff",
    "versions show",
    "versions use",
)
INTRODUCTION = """\
# Command line

This page is what `deita COMMAND --help-all` prints; `--help` prints only the options that most runs
need. Each panel of a flow's options is also a section of the YAML file that `--config` reads.
"""
# Under the name `deita`, whatever starts it.
RUN_DEITA = "import sys; sys.argv[0] = 'deita'; from flows.cli import main; main()"
# Rich and Typer take these as a terminal with colours.
TERMINAL_VARIABLES = {
    "FORCE_COLOR",
    "GITHUB_ACTIONS",
    "PY_COLORS",
    "TERMINAL_WIDTH",
    "TTY_COMPATIBLE",
}


def help_of(command: str) -> str:
    """Return the help of a command with all options, as plain text of COLUMNS columns."""
    try:
        return run_deita(*command.split(), "--help-all")
    except subprocess.CalledProcessError:  # a command with few options has only --help
        return run_deita(*command.split(), "--help")


def run_deita(*arguments: str) -> str:
    """Return what `deita` prints, without spaces at the end of lines."""
    environment = {
        name: value for name, value in os.environ.items() if name not in TERMINAL_VARIABLES
    }
    environment |= {"COLUMNS": str(COLUMNS), "NO_COLOR": "1", "TERM": "dumb"}
    process = subprocess.run(
        [sys.executable, "-c", RUN_DEITA, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line.rstrip() for line in process.stdout.splitlines()]
    return "\n".join(lines).strip("\n")


def page() -> str:
    """Return the page as Markdown."""
    sections = [INTRODUCTION]
    for command in COMMANDS:
        name = f"deita {command}".strip()
        sections.append(f"## {name}\n\n```text\n{help_of(command)}\n```\n")
    return "\n".join(sections)


if __name__ == "__main__":
    if "--print" in sys.argv[1:]:
        print(page(), end="")
    else:
        PAGE.write_text(page(), encoding="utf-8")
