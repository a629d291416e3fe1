"""What a user mistypes on the command line: one line that says so, and status 2."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from deita_tasks import config
from flows.cli import store
from flows.cli.app import main

ROOT = Path(__file__).parents[3]
GIVEN = ("--input", "pool.jsonl", "--output", "out")

Deita = Callable[..., tuple[int, str]]


@pytest.fixture
def deita(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Deita:
    """Run `deita`; return its status and its one line of error, or what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        printed = capsys.readouterr()
        if ended.value.code:
            assert printed.out == ""
            assert printed.err.count("\n") == 1
        return int(ended.value.code or 0), printed.err or printed.out

    return run


@pytest.fixture
def parameters(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `deita select` hands over; nothing runs."""
    seen: dict[str, Any] = {}

    def get_ready(
        run: Any,
        source: config.Source,
        scoring: Any,
        embedding: Any,
        selection: config.Selection,
        export: config.Export,
        advanced: Any,
        filtering: Any,
    ) -> None:
        seen.update(source=source, selection=selection, export=export)
        sys.exit(0)

    monkeypatch.setattr("flows.cli.app.get_ready", get_ready)
    return seen


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("select --bugdet 5", "--bugdet; did you mean --budget?"),
        ("select --bugdet=5", "--bugdet; did you mean --budget?"),
        ("select --input pool.jsonl --output out --bugdet 5", "--bugdet; did you mean --budget?"),
        ("select --output --bugdet 5", "--bugdet; did you mean --budget?"),
        ("select --budget many --bugdet 5", "--bugdet; did you mean --budget?"),
        ("select --bugdet 5 --config absent.yaml", "--bugdet; did you mean --budget?"),
        ("select --no-verbose", "--no-verbose; did you mean --verbose?"),
        ("select --xyzzy", "--xyzzy; `deita select --help-all` lists them all"),
        ("select -x", "-x; `deita select --help-all` lists them all"),
        ("select -x=5", "-x; `deita select --help-all` lists them all"),
        ("sweep --budget 5", "--budget; did you mean --budgets?"),
        ("solve --output out", "--output; `deita solve --help-all` lists them all"),
        ("reselect --overwrite", "--overwrite; `deita reselect --help-all` lists them all"),
        ("preflight --inputs x", "--inputs; did you mean --input?"),
        ("explain row --ouput out", "--ouput; did you mean --output?"),
        ("explain --ouput out", "--ouput; did you mean --output?"),
        ("store --stor x", "--stor; `deita store --help-all` lists them all"),
        ("store gc --dryrun", "--dryrun; did you mean --dry-run?"),
        ("store verify --no-remove", "--no-remove; did you mean --remove?"),
        ("--verison", "--verison; did you mean --version?"),
        ("--config x.yaml select", "--config; `deita --help-all` lists them all"),
        ("--install-completion --shel bash", "--shel; did you mean --shell?"),
    ],
)
def test_an_unknown_option_is_told_first(deita: Deita, line: str, said: str) -> None:
    assert deita(*line.split()) == (2, f"deita: unknown option {said}\n")


def test_an_unknown_command_comes_before_its_options(deita: Deita) -> None:
    status, error = deita("selct", "--bugdet", "5")
    assert status == 2
    assert 'Did you mean "select"?' in error


@pytest.mark.parametrize("line", ["select --bugdet 5 --help", "select --help-all --bugdet"])
def test_help_wins_over_a_mistake(deita: Deita, line: str) -> None:
    status, text = deita(*line.split())
    assert status == 0
    assert text.startswith("Usage: deita select")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--budget",), "--budget needs a value"),
        (("--budget", "--seed", "3"), "--budget needs a value"),
        (("--config",), "--config needs a value"),
        (("--strata", "-x"), "--strata needs a value; is it --strata=-x?"),
        (("more.jsonl",), "unexpected argument 'more.jsonl'; for several values repeat"),
        (("--", "more.jsonl"), "unexpected argument 'more.jsonl'"),
        (("--overwrite=maybe",), 'Invalid value for --overwrite: unable to convert "maybe"'),
        (("--budget", ""), "selection.budget: '' arrived"),
        (("--preset", "huge"), "preset: 'huge' arrived; expected one of mini, paper"),
        (("--max-similarity", "2"), "selection: max_similarity = 2.0: expected a cosine"),
    ],
)
def test_a_value_that_is_missing_wrong_or_too_much(
    deita: Deita, words: tuple[str, ...], said: str
) -> None:
    status, error = deita("select", *GIVEN, *words)
    assert status == 2
    assert error.startswith(f"deita: {said}")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("select", "--input is required (or set it in the section 'source' of --config)"),
        ("explain", "ROW is required"),
        ("explain row", "--output is required"),
        ("store gc --forget-days", "--forget-days needs a value"),
        ("store gc --grace-days inf", 'Invalid value "inf" for --grace-days. Must be <= 36500.'),
        ("store gc --grace-days -1", 'Invalid value "-1.0" for --grace-days. Must be >= 0.'),
        ("store gc --forget-days 1e300", 'Invalid value "1e+300" for --forget-days.'),
        ("store compact --rows 1.5", "Invalid value for --rows: '1.5' is not a whole number"),
        ("store compact --rows 0", 'Invalid value "0" for --rows. Must be >= 1.'),
    ],
)
def test_what_is_required_or_out_of_bounds(deita: Deita, line: str, said: str) -> None:
    status, error = deita(*line.split())
    assert status == 2
    assert error.startswith(f"deita: {said}")


@pytest.mark.parametrize("command", ["ls", "du", "gc", "verify", "compact"])
@pytest.mark.parametrize("blank", ["", " "])
def test_a_blank_store_is_not_the_working_folder(
    deita: Deita, command: str, blank: str, tmp_path: Path
) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    status, error = deita("store", command, "--store", blank)
    assert status == 2
    assert f"{blank!r}: no store here" in error


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("explain row --output file", "file: no result here"),
        ("explain row --output file/deeper", "file/deeper: no result here"),
        ("store ls --store file", "file: is a file; expected a folder"),
        ("store ls --store file/deeper", "'file/deeper': no store here"),
        (
            "select --input p --output o --config file/x.yaml",
            "file/x.yaml: not a readable YAML file: Not a directory",
        ),
    ],
)
def test_a_file_where_a_folder_is_expected(
    deita: Deita, line: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    status, error = deita(*line.split())
    assert status == 2
    assert error.startswith(f"deita: {said}")


def test_an_unknown_key_in_the_file_gets_a_suggestion(deita: Deita, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("scoring: {complexity-model: m}")
    _, error = deita("select", *GIVEN, "--config", "config.yaml")
    assert "unknown option 'complexity-model'; did you mean complexity_model?" in error


def test_of_an_option_given_twice_the_last_counts(deita: Deita, parameters: dict[str, Any]) -> None:
    twice = ("--budget", "5", "--budget", "6", "--overwrite", "--no-overwrite", "-vv")
    assert deita("select", *GIVEN, "--input", "b.jsonl", *twice) == (0, "")
    assert parameters["source"].input == ["pool.jsonl", "b.jsonl"]
    assert parameters["selection"].budget == 6
    assert parameters["export"].overwrite is False


@pytest.mark.parametrize("given", [("--max-similarity", "-0.5"), ("--max_similarity=-5e-1",)])
def test_negative_numbers_and_underscores(
    deita: Deita, parameters: dict[str, Any], given: tuple[str, ...]
) -> None:
    assert deita("select", *GIVEN, *given) == (0, "")
    assert parameters["selection"].max_similarity == -0.5


@pytest.mark.parametrize("line", ["--version", "select --version", "store --version"])
def test_every_command_has_the_version_of_the_package(deita: Deita, line: str) -> None:
    assert deita(*line.split()) == (0, metadata.version("deita-tasks") + "\n")
    assert deita("store", "ls", "--version") == (0, metadata.version("deita-tasks") + "\n")


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {x: 1, y: 2}\n" + "".join(
    f"{name}: &{name} {{<<: [{', '.join([f'*{before}'] * 10)}]}}\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (LAUGHS, "line 5: aliases make this more than 100,000 values"),
        (MERGES, "aliases make this more than 100,000 values"),
        ("a: &a [*a]", "line 1: aliases make this more than 100,000 values"),
        ("source: " + "[" * 50_000, "line 1: over 20 levels; expected sections of options"),
        ("source: " + "{a: " * 50_000, "line 1: over 20 levels; expected sections of options"),
        ("".join(" " * i + "a:\n" for i in range(1_500)), "over 20 levels"),
        ("#" * (5 << 20), "not a readable YAML file: over 4,194,304 characters"),
    ],
    ids=["laughs", "merges", "itself", "lists", "objects", "lines", "long"],
)
def test_a_file_that_grows_or_is_nested_too_deep(
    deita: Deita, tmp_path: Path, content: str, said: str
) -> None:
    (tmp_path / "config.yaml").write_text(content)
    status, error = deita("select", *GIVEN, "--config", "config.yaml")
    assert status == 2
    assert said in error
    assert len(error) < 200


FILES = [
    *("select --output out --input", "select --input pool.jsonl --output"),
    *("select --input pool.jsonl --output out --store", "sweep --input pool.jsonl --output"),
    *("reselect --input pool.jsonl --output", "reselect --output out --input"),
    *("solve --input", "solve --input pool.jsonl --store", "preflight --input"),
    *("explain row --output", "explain row --output out --store", "store ls --store"),
    "select --input pool.jsonl --output out --config",
    *("store gc --store", "store verify --store", "store compact --store", "store du --store"),
    "select --input pool.jsonl --output out --complexity provided --scores-file",
    "select --input pool.jsonl --output out --embedding provided --embeddings-file",
    "select --input pool.jsonl --output out --complexity causal_lm --complexity-model",
    "select --input pool.jsonl --output out --embedding-model",
]


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool, and no network and no server."""
    (tmp_path / "pool.jsonl").write_text('{"prompt": "p", "response": "r"}\n')

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("nothing is fetched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("flows.cli.app.start_server", lambda **_: lambda: None)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("line", FILES)
@pytest.mark.parametrize(
    "uri", ["ftp://host/x", "github://a:b@/x", "reference://x", "http://127.0.0.1/x", "zip://x"]
)
def test_nothing_is_fetched_from_other_places(deita: Deita, line: str, uri: str) -> None:
    status, error = deita(*line.split(), uri)
    assert status == 2
    assert error.startswith("deita: ")


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("line", [*FILES, "select --input pool.jsonl --bugdet 3 --input"])
@pytest.mark.parametrize("secret", ["pw", "p/w+x"])
def test_a_password_is_refused_and_not_repeated(deita: Deita, line: str, secret: str) -> None:
    status, error = deita(*line.split(), f"s3://user:{secret}@bucket/x")
    assert status == 2
    assert secret not in error


# ---- the machine


def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "flows.cli", *arguments],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        process = start("--version", stdout=full)
        _, error = process.communicate(timeout=300)
    assert process.returncode == 1
    assert error == "deita: [Errno 28] No space left on device\n"


def test_completion_for_a_home_that_cannot_be_written(
    deita: Deita, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").write_text("a file")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    status, error = deita("--install-completion", "--shell", "bash")
    assert status == 1
    assert "Not a directory" in error


def test_a_closed_pipe_is_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = start("select", "--help-all", stdout=writing)
    os.close(writing)
    _, error = process.communicate(timeout=300)
    assert (process.returncode, error) == (1, "")


def test_an_interruption_while_it_loads_is_no_traceback() -> None:
    interrupt = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job ignores it
        "class Interrupt:\n"
        "    def find_spec(self, name, *_):\n"
        "        name == 'flows.cli.app' and os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "from flows.cli import main\n"
        "main(['--version'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", interrupt], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stderr) == (128 + signal.SIGINT, "")


def test_an_interruption_of_a_run_is_one_line(tmp_path: Path) -> None:
    """Not a crash with an unexpected exception in Prefect's log, nor a traceback at exit."""
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from flows.cli import main; main()"
    )
    options = ["--complexity", "instruction_length", "--quality", "response_length"]
    options += ["--strategy", "top_score", "--input", str(ROOT / "examples" / "pool.jsonl")]
    environment = {**os.environ, "PREFECT_LOGGING_LEVEL": "INFO", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", code, "select", *options, "--output", "out"],
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    log = []
    for line in process.stderr:
        log.append(line)
        if "shards:" in line and process.poll() is None:
            process.send_signal(signal.SIGINT)
    assert process.wait(300) == 128 + signal.SIGINT
    assert log[-1].startswith("deita: interrupted; what was computed is kept")
    assert not [line for line in log if "rash" in line or "Traceback" in line]


def test_a_block_that_nobody_saved(deita: Deita, monkeypatch: pytest.MonkeyPatch) -> None:
    def get_ready(*_: object) -> None:
        raise ValueError(
            "Unable to find block document named gone for block type local-file-system"
        )

    monkeypatch.setattr("flows.cli.app.get_ready", get_ready)
    assert deita("select", *GIVEN) == (
        2,
        "deita: Prefect's settings: they name the block local-file-system/gone, which nobody "
        "saved; save it, or unset the setting\n",
    )


def test_a_setting_of_prefect_that_is_none(deita: Deita, monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.settings.models.logging import LoggingSettings

    monkeypatch.setattr("flows.cli.app.get_ready", lambda *_: LoggingSettings(level="LOUD"))
    status, error = deita("select", *GIVEN)
    assert status == 2
    assert error.startswith("deita: Prefect's settings: level: 'LOUD' arrived; expected one of DEB")


def test_a_terminal_without_our_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names in a store that the terminal's encoding lacks are printed as escapes."""
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    store._console().print("[p]é.jsonl")
    sys.stdout.flush()
    assert written.getvalue() == b"[p]\\xe9.jsonl\n"


@pytest.mark.parametrize(
    "line", ["select --output out --input", "explain row --output", "store ls --store"]
)
def test_a_name_cannot_act_on_the_terminal(deita: Deita, line: str) -> None:
    """Not set its title, change its colours, turn letters round or fake a second line."""
    _, error = deita(*line.split(), "\x1b]0;owned\x07\x1b[31m\u202egnp\nfake")
    assert r"\x1b]0;owned\x07\x1b[31m\u202egnp" in error.replace("\\\\", "\\")
