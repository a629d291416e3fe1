"""The command line: complete help, a YAML file with flags winning, and for whatever is wrong one
line and a status.
"""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import create_autospec

import pytest
import yaml
from rich.console import Console, ConsoleDimensions

from deita_tasks import config
from deita_tasks.errors import InputError
from deita_tasks.findings import Findings, VanishedValue
from flows.cli import printing
from flows.cli.app import app, main, quiet_prefect
from flows.cli.options import COMMON_OPTIONS, flag, read_config
from tests.support.small_pool import ROWS, ranked, write_rows

ROOT = Path(__file__).parents[3]


GROUPS: dict[str, type[config.Group]] = {
    "source": config.Source,
    "scoring": config.Scoring,
    "embedding": config.Embedding,
    "filtering": config.Filtering,
    "selection": config.Selection,
    "export": config.Export,
    "advanced": config.Advanced,
}


def commands(app: Any, *words: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command below `app`, with the words that call it."""
    for name in app:
        if not name.startswith("-"):
            yield (*words, name), app[name]
            yield from commands(app[name], *words, name)


COMMANDS = dict(commands(app))


def ended(*arguments: str) -> int:
    """The exit status of the command in this process."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return int(caught.value.code or 0)


@pytest.fixture
def parameters(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the command hands to the flow, which is not run."""
    import flows.select

    seen: dict[str, Any] = {}

    class Subset(dict[str, Any]):
        uri = "out"

    def select_subset(**given: Any) -> Subset:
        seen.update(given)
        decisions = dict.fromkeys(printing.DECISION_NOTES, 0)
        fields = {
            "counts": {"read": 0, **decisions},
            "left_out": 0,
            "computed": {},
            "reused": {},
            "timings": {},
            "outputs": {},
            "truncated": {},
            "tasks": {},
            "notes": [],
            "tokens": None,
        }
        return Subset(fields)

    monkeypatch.setattr(flows.select, "select_subset", select_subset)
    return seen


# ---- help


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal that breaks no help text over lines, whatever the environment says."""
    monkeypatch.setattr(Console, "size", property(lambda _: ConsoleDimensions(600, 25)))
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_names_every_command(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(option) == 0
    text = capsys.readouterr().out
    assert ("select",) in COMMANDS
    for words in COMMANDS:
        if len(words) == 1:
            assert re.search(rf"\b{words[0]}\b", text)
    for status in ("0 success", "2 an error you can fix", "1 any other", "130 interrupted"):
        assert status in text


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_explains_itself_and_its_options(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    command = COMMANDS[words]
    assert ended(*words, "--help-all") == 0
    text = capsys.readouterr().out
    assert command.help
    assert command.help.splitlines()[0] in text
    if words in {("store",), ("versions",)}:
        return
    for argument in command.assemble_argument_collection(parse_docstring=True):
        if argument.show:
            assert argument.parameter.help, f"{' '.join(words)} does not explain {argument.name}"
            assert argument.name in text


@pytest.mark.usefixtures("wide")
def test_help_all_of_select_explains_every_parameter(capsys: pytest.CaptureFixture[str]) -> None:
    """Each field of each group, with its own help text and default; the models list them."""
    ended("select", "--help-all")
    text = capsys.readouterr().out
    for group, model in GROUPS.items():
        assert re.search(rf"─ {group} ─", text), f"no panel for {group}"
        for name, field in model.model_fields.items():
            (line,) = [
                line
                for line in text.splitlines()
                if re.match(rf"│[ *]*{flag(name)}(?![\w-])", line)
            ]
            assert str(field.description) in line
            default = field.get_default()
            if field.is_required():
                assert "[required]" in line
            elif default is not None:
                assert f"[default: {default}]" in line
    for option in ("--preset", "--config", "--verbose"):
        assert option in text


def shown_options(text: str) -> set[str]:
    """The options that a help explains."""
    starts = re.findall(r"^│[ *]*(--[a-z-]+)", text, re.MULTILINE)
    return set(starts)


@pytest.mark.usefixtures("wide")
def test_help_of_select_shows_what_most_people_need(capsys: pytest.CaptureFixture[str]) -> None:
    ended("select", "--help")
    text = capsys.readouterr().out
    assert shown_options(text) == {
        *("--input", "--output", "--output-format", "--overwrite", "--store", "--config"),
        *("--preset", "--budget", "--strategy", "--max-similarity"),
    }
    assert "--help-all" in text
    assert "Default: 0.9" in text


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_of_no_command_shows_more_than_ten_options(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    ended(*words, "--help")
    options = shown_options(capsys.readouterr().out)
    assert len(options) <= 10
    if words[0] in COMMON_OPTIONS:
        assert options == {flag(name) for name in COMMON_OPTIONS[words[0]]}


@pytest.mark.parametrize("columns", [80, 60])
@pytest.mark.parametrize("name", COMMON_OPTIONS)
def test_help_breaks_no_word_of_a_choice(
    name: str, columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    ended(name, "--help-all")
    lines = [line.strip("│ ") for line in capsys.readouterr().out.splitlines()]
    words = {word.strip("[],") for line in lines for word in line.split()}
    for argument in COMMANDS[name,].assemble_argument_collection():
        assert set(argument.get_choices() or ()) <= words, argument.name


def test_the_version_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended("--version") == 0
    assert capsys.readouterr().out.strip() == metadata.version("deita-tasks")


@pytest.mark.parametrize(("shell", "file"), [("bash", ".bashrc"), ("zsh", ".zshrc")])
def test_shell_completion_is_installed(
    shell: str,
    file: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ended("--install-completion", "--shell", shell) == 0
    scripts = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != file]
    assert any("max-similarity" in path.read_text() for path in scripts)


def test_the_package_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "select", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0
    assert "--max-similarity" in done.stdout
    assert "Traceback" not in done.stderr


# ---- what is wrong is one line and status 2


def wrong(tmp_path: Path) -> dict[str, tuple[list[str], str]]:
    """By name: the arguments, and what the line has to say. POOL and OUT are put in where neither
    is what is wrong.
    """
    result, foreign = tmp_path / "result", tmp_path / "foreign"
    for folder in (result, foreign):
        folder.mkdir()
    (result / "manifest.json").write_text(
        json.dumps({"format_version": 1, "counts": {}, "fingerprints": {}, "outputs": {}})
    )
    (foreign / "thesis.tex").write_text("years of work")
    config = tmp_path / "config"
    config.mkdir()
    texts = {
        "section": "sorce: {}",
        "key": "selection: {bugdet: 5}",
        "value": "selection: {budget: many}",
        "list": "[1, 2]",
        "flat": "selection: 5",
        "not-yaml": "a: [",
        "no-date": "selection: {budget: 2026-13-45}",
        "section-twice": "selection:\n  budget: 5\nexport: {}\nselection:\n  max_similarity: 0.8\n",
        "key-twice": "selection: {budget: 5, seed: 1, budget: 6}",
        "preset": "preset: huge",
        "bytes": "",
    }
    for name, text in texts.items():
        (config / f"{name}.yaml").write_text(text)
    (config / "bytes.yaml").write_bytes(b"\xff\xfe\x00")

    def said_in(name: str) -> list[str]:
        return ["--input", "POOL", "--output", "OUT", "--config", str(config / f"{name}.yaml")]

    return {
        "no input": (["--output", "OUT"], "--input is required"),
        "no output": (["--input", "POOL"], "--output is required"),
        "nothing": ([], "is required"),
        "unknown option": (["--input", "POOL", "--output", "OUT", "--bugdet", "5"], "--bugdet"),
        "missing file": (
            ["--input", str(tmp_path / "absent.jsonl"), "--output", "OUT"],
            "absent.jsonl",
        ),
        "one of two files missing": (
            ["--input", "POOL", "--input", str(tmp_path / "absent.jsonl"), "--output", "OUT"],
            "absent.jsonl",
        ),
        "unknown preset": (["--input", "POOL", "--output", "OUT", "--preset", "huge"], "huge"),
        "unknown strategy": (["--input", "POOL", "--output", "OUT", "--strategy", "best"], "best"),
        "unknown scorer": (["--input", "POOL", "--output", "OUT", "--quality", "lenght"], "lenght"),
        "budget of 0": (
            ["--input", "POOL", "--output", "OUT", "--budget", "0"],
            "selection.budget: 0 arrived",
        ),
        "budget of a half": (
            ["--input", "POOL", "--output", "OUT", "--budget", "0.5"],
            "selection.budget: 0.5 arrived",
        ),
        "similarity of 2": (
            ["--input", "POOL", "--output", "OUT", "--max-similarity", "2"],
            "max_similarity = 2.0",
        ),
        "similarity of the random": (
            [
                "--input",
                "POOL",
                "--output",
                "OUT",
                "--strategy",
                "random",
                "--max-similarity",
                "0.5",
            ],
            "random",
        ),
        "an earlier result": (["--input", "POOL", "--output", str(result)], "--overwrite"),
        "not a result": (
            ["--input", "POOL", "--output", str(foreign), "--overwrite"],
            "not a result of ours",
        ),
        "output is a file": (["--input", "POOL", "--output", "POOL"], "folder"),
        "a model for a scorer without": (
            ["--input", "POOL", "--output", "OUT", "--quality-model", "me/x"],
            "'model'",
        ),
        "unknown scheme": (["--input", "gopher://old/pool", "--output", "OUT"], "gopher"),
        "no config": (
            ["--input", "POOL", "--output", "OUT", "--config", str(tmp_path / "absent.yaml")],
            "absent.yaml",
        ),
        "unknown section": (said_in("section"), "unknown section 'sorce'"),
        "unknown key": (said_in("key"), "unknown option 'bugdet'"),
        "wrong value": (said_in("value"), "selection.budget: 'many' arrived"),
        "a list": (said_in("list"), "a list"),
        "not a section": (said_in("flat"), "section 'selection'"),
        "not YAML": (said_in("not-yaml"), "not a readable YAML file"),
        "no date": (said_in("no-date"), "not a readable YAML file"),
        "a section twice": (
            said_in("section-twice"),
            "section-twice.yaml, line 4: repeats 'selection' of line 1",
        ),
        "a key twice": (said_in("key-twice"), "line 1: repeats 'budget' of line 1"),
        "preset in the file": (said_in("preset"), "huge"),
        "bytes": (said_in("bytes"), "not a readable YAML file"),
    }


NAMES = [
    "no input",
    "no output",
    "nothing",
    "unknown option",
    "missing file",
    "one of two files missing",
    "unknown preset",
    "unknown strategy",
    "unknown scorer",
    "budget of 0",
    "budget of a half",
    "similarity of 2",
    "similarity of the random",
    "an earlier result",
    "not a result",
    "output is a file",
    "a model for a scorer without",
    "unknown scheme",
    "no config",
    "unknown section",
    "unknown key",
    "wrong value",
    "a list",
    "not a section",
    "not YAML",
    "no date",
    "a section twice",
    "a key twice",
    "preset in the file",
    "bytes",
]


def arguments_of(name: str, tmp_path: Path, pool: Path) -> tuple[list[str], str]:
    arguments, said = wrong(tmp_path)[name]
    places = {"POOL": str(pool), "OUT": str(tmp_path / "out")}
    return ["select", *[places.get(one, one) for one in arguments]], said


@pytest.mark.parametrize("name", NAMES)
def test_a_mistake_is_one_line_and_status_2(
    name: str,
    tmp_path: Path,
    small_pool: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, said = arguments_of(name, tmp_path, small_pool)
    assert ended(*arguments) == 2
    shown = capfd.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    assert line.startswith("deita: ")
    assert said in line
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / ".deita").exists()


@pytest.mark.parametrize("name", ["budget of 0", "missing file", "an earlier result"])
def test_so_it_is_from_a_shell(name: str, tmp_path: Path, small_pool: Path) -> None:
    arguments, said = arguments_of(name, tmp_path, small_pool)
    deita = Path(sys.executable).with_name("deita")
    done = subprocess.run(
        [str(deita), *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr


def test_an_unknown_command(capfd: pytest.CaptureFixture[str]) -> None:
    assert ended("chose") == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "chose" in line


def test_what_stops_on_the_way_is_one_line_too(
    parameters: Any, tmp_path: Path, small_pool: Path, monkeypatch: Any, capfd: Any
) -> None:
    """An error of the family from inside the flow has its own status; Ctrl-C is 130."""
    import flows.select
    from deita_tasks.errors import ModelError, TooManyBadRows

    for problem, status in (
        (TooManyBadRows("30 of 36 rows"), 1),
        (ModelError("no weights:\n\n  none\n"), 1),
        (KeyboardInterrupt(), 130),
    ):

        def fails(problem: BaseException = problem, **given: Any) -> None:
            raise problem

        monkeypatch.setattr(flows.select, "select_subset", fails)
        assert (
            ended("select", "--input", str(small_pool), "--output", str(tmp_path / "out")) == status
        )
        assert len(capfd.readouterr().err.splitlines()) == 1


# ---- what is given arrives


def test_flags_and_defaults(parameters: dict[str, Any], tmp_path: Path, small_pool: Path) -> None:
    out = str(tmp_path / "out")
    given = [
        "--input",
        str(small_pool),
        "--output",
        out,
        "--budget",
        "7",
        "--max-similarity",
        "0.5",
        "--shard-rows",
        "3",
        "--preset",
        "mini",
    ]
    assert ended("select", *given, "--embedding-max-length", "128") == 0
    assert parameters["preset"] == "mini"
    assert parameters["source"].input == [str(small_pool)]
    assert (parameters["selection"].budget, parameters["selection"].max_similarity) == (7, 0.5)
    assert parameters["advanced"].shard_rows == 3
    assert parameters["embedding"].embedding_max_length == 128
    for name in ("scoring", "export"):
        required = {"output": out} if name == "export" else {}
        assert parameters[name] == GROUPS[name](**required)


def test_every_field_can_be_given_as_a_flag(
    parameters: dict[str, Any], tmp_path: Path, small_pool: Path, monkeypatch: Any
) -> None:
    """The plan would rightly refuse some of these together, so it is left out."""
    import deita_tasks.plan

    monkeypatch.setattr(deita_tasks.plan, "plan_run", create_autospec(deita_tasks.plan.plan_run))
    values = {
        "source": {"input": ["a", "b"], "format": "alpaca", "min_good_fraction": 0.5},
        "scoring": {
            "complexity": "causal_lm",
            "complexity_model": "m/c",
            "complexity_revision": "r1",
            "complexity_head": "heads/c",
            "quality": "causal_lm",
            "quality_model": "m/q",
            "quality_revision": "r2",
            "quality_head": "s3://heads/q",
            "score_max_length": 100,
            "score_dtype": "float16",
            "score_compile": True,
            "complexity_url": "http://c/v1",
            "complexity_tokenizer": "m/tc",
            "quality_url": "http://q/v1",
            "quality_tokenizer": "m/tq",
            "score_server": "other",
            "api_key_env": "MY_KEY",
            "api_key_block": "my-block",
            "concurrency": 3,
            "request_timeout": 7.5,
            "request_attempts": 4,
            "complexity_column": "cc",
            "complexity_per": "row",
            "complexity_scale": "0..10",
            "quality_column": "qc",
            "quality_per": "turn",
            "quality_scale": "0..1",
            "scores_file": "s.parquet",
            "scores_key": "doc",
            "language_model": "m/l",
            "language_model_revision": "r5",
            "language_model_max_length": 256,
            "language_model_dtype": "bfloat16",
        },
        "embedding": {
            "embedding": "causal_lm",
            "embedding_model": "m/e",
            "embedding_revision": "r3",
            "embedding_max_length": 99,
            "long_texts": "beginning",
            "embedding_dtype": "bfloat16",
            "embedding_compile": True,
            "embedding_text": "answers",
            "embedding_column": "ec",
            "embeddings_file": "e.parquet",
            "embeddings_key": "doc",
        },
        "filtering": {
            "decontaminate": ["e.jsonl", "f.jsonl"],
            "decontaminate_words": 8,
            "decontaminate_share": 0.25,
            "decontaminate_run": 20,
            "decontaminate_similarity": 0.75,
            "tokenizer": "m/t",
            "tokenizer_revision": "r4",
            "chat_template": "chatml",
            "train_window": 512,
            "cut_turns": True,
        },
        "selection": {
            "budget": 9,
            "budget_tokens": 900,
            "strategy": "mmr",
            "target": ["t.jsonl", "u.jsonl"],
            "rank_by": "ifd",
            "ifd_below": 1.25,
            "tags": "labels",
            "max_similarity": -0.5,
            "metric": "dot",
            "min_distance": 0.25,
            "ranking": "length",
            "evol_score": "max",
            "evaluation": "all",
            "strata": "topic",
            "per_stratum": 2,
            "mix": "topic=a:0.5,*:0.5",
            "clusters": 3,
            "eps": 0.125,
            "groups": 4,
            "weight": 0.75,
            "candidates": 9,
            "seed": 4,
            "target_size": "exact",
        },
        "export": {
            "output": "out",
            "output_format": "hf_dataset",
            "overwrite": True,
            "scores": False,
            "complete_only": True,
        },
        "advanced": {
            "store": "s",
            "shard_rows": 5,
            "retries": 0,
            "device": "cpu",
            "allow_bin": True,
            "runner": "ray",
            "workers": 3,
            "cluster": "ray://head:10001",
            "num_gpus": 0.5,
            "device_slots": 2,
            "shard_timeout": 7.5,
        },
    }
    assert {name: set(group) for name, group in values.items()} == {
        name: set(model.model_fields) for name, model in GROUPS.items()
    }
    arguments: list[str] = []
    for group in values.values():
        for name, value in group.items():
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, bool):
                    arguments.append(flag(name if one else f"no_{name}"))
                else:
                    arguments += [flag(name), str(one)]
    assert ended("select", *arguments) == 0
    assert {name: parameters[name].model_dump() for name in GROUPS} == values


def test_a_file_speaks_where_no_flag_does(
    parameters: dict[str, Any], tmp_path: Path, small_pool: Path
) -> None:
    config = tmp_path / "config.yaml"
    said = {
        "preset": "mini",
        "source": {"input": str(small_pool), "min_good_fraction": 0.5},
        "selection": {"budget": 7, "max_similarity": 0.5},
        "export": {"output": str(tmp_path / "out"), "overwrite": True},
        "advanced": None,
    }
    config.write_text(yaml.safe_dump(said))
    assert ended("select", "--config", str(config), "--budget", "8", "--no-overwrite") == 0
    assert parameters["source"].input == [str(small_pool)]
    assert parameters["source"].min_good_fraction == 0.5
    assert (parameters["selection"].budget, parameters["selection"].max_similarity) == (8, 0.5)
    assert parameters["export"].overwrite is False


def test_a_section_may_build_on_another(tmp_path: Path) -> None:
    """YAML's own way of saying a thing once: what is merged in is no key that stands twice, however
    deep it lies.
    """
    config = tmp_path / "config.yaml"
    config.write_text("a: &a {x: 1, y: 2}\nb: {c: &c {<<: *a, y: 3}}\nd: {<<: *c, y: 4}\n")
    assert read_config(config) == {
        "a": {"x": 1, "y": 2},
        "b": {"c": {"x": 1, "y": 3}},
        "d": {"x": 1, "y": 4},
    }


def write_manifest(folder: Path, **parameters: Any) -> str:
    """Write the manifest of a selection as far as --config reads it."""
    folder.mkdir()
    fields = {"preset": "paper", "parameters": parameters, "counts": {"read": 3}}
    (folder / "manifest.json").write_text(json.dumps(fields))
    return str(folder)


@pytest.mark.parametrize("name", ["", "/manifest.json"])
def test_a_manifest_gives_every_option_but_the_place_of_the_result(
    name: str, parameters: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.cli.app.get_ready", lambda *_: None)
    folder = write_manifest(
        tmp_path / "first",
        source={"input": ["a.jsonl", "b.jsonl"], "format": "auto"},
        scoring={"complexity": "mini", "complexity_model": None},
        selection={"budget": "all", "seed": 3},
        export={"output": "first", "overwrite": True, "scores": False},
    )
    config = ("--config", f"{folder}{name}")
    assert ended("select", *config, "--output", "second", "--seed", "4") == 0
    assert parameters["preset"] == "paper"
    assert parameters["source"].input == ["a.jsonl", "b.jsonl"]
    assert parameters["scoring"].complexity == "mini"
    assert (parameters["selection"].budget, parameters["selection"].seed) == ("all", 4)
    export = parameters["export"]
    assert (export.output, export.overwrite, export.scores) == ("second", False, False)


def test_what_a_manifest_cannot_give(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = write_manifest(tmp_path / "first", source={"input": ["a"]}, grid={"budgets": [1]})
    empty = tmp_path / "empty"
    empty.mkdir()
    for arguments, expected in [
        (("--config", folder), f"--output is required: {folder} gives every option but the place"),
        (("--config", str(empty)), "no such file; expected the manifest.json of a result"),
        (("--config", folder, "--output", "o"), "unknown section 'grid'; expected preset, source"),
    ]:
        assert ended("select", *arguments) == 2
        (line,) = capfd.readouterr().err.splitlines()
        assert expected in line


def test_the_last_line_is_the_time_of_the_whole_command(
    parameters: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("flows.cli.app.get_ready", lambda *_: None)
    monkeypatch.setattr(printing, "seconds_since_start", lambda: 12.34)
    assert ended("select", "--input", "pool.jsonl", "--output", "out") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "12.3 s"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the system does not say it")
def test_that_time_begins_with_the_process() -> None:
    """Also before our own modules load."""
    code = "import time; time.sleep(1); from flows.cli import *; print(seconds_since_start())"
    before = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    # The system counts in hundredths.
    assert 1 <= float(done.stdout) <= time.monotonic() - before + 0.01


def test_the_parts_of_that_time_add_up(capsys: pytest.CaptureFixture[str]) -> None:
    printing.print_time({"load": 0.25, "select": 0.5})
    total, parts = capsys.readouterr().out.strip().split(" s: ")
    seconds = {name: float(value) for name, value in re.findall(r"([a-z ]+) ([\d.]+)", parts)}
    assert list(seconds) == ["load", " select", " start and export"]
    assert sum(seconds.values()) == pytest.approx(float(total), abs=0.2)


# ---- for real


@pytest.mark.flow
def test_a_run_says_what_became_of_the_rows(
    tiny: None, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    pool = write_rows(tmp_path / "pool.jsonl", [*ROWS, ROWS[0]])
    store = ["--store", str(tmp_path / "store"), "--strategy", "top_score"]
    assert (
        ended(
            "select",
            "--input",
            str(pool),
            "--output",
            str(tmp_path / "out"),
            "--budget",
            "5",
            *store,
        )
        == 0
    )
    lines = [line.split() for line in capfd.readouterr().out.splitlines()]
    for start in (["read", "31"], ["selected", "5"], ["below", "budget", "25"], ["duplicate", "1"]):
        assert any(line[: len(start)] == start for line in lines), start
    subset = (tmp_path / "out" / "selected.jsonl").read_text()
    kept = [json.loads(line)["deita_id"] for line in subset.splitlines()]
    assert kept == ranked(ROWS)[:5]
    # The same again, with what the manifest says.
    again = tmp_path / "again"
    assert ended("select", "--config", str(tmp_path / "out"), "--output", str(again)) == 0
    assert (again / "selected.jsonl").read_text() == subset


# Each line of a file, and the reason for which it is quarantined (None: it is a conversation).
def _m(*turns: Any, **more: Any) -> str:
    return json.dumps(
        {"messages": [{"role": role, "content": content} for role, content in turns], **more},
        ensure_ascii=False,
    )


ODD: list[tuple[bytes, str | None]] = [
    (_m(("user", "An ordinary question"), ("assistant", "An ordinary answer")).encode(), None),
    (
        _m(("system", "Be brief."), ("user", "With a system turn"), ("assistant", "Yes")).encode(),
        None,
    ),
    (_m(("user", "Twice"), ("user", "in a row"), ("assistant", "ok")).encode(), None),
    (_m(("user", "Never answered")).encode(), "no_answer"),
    (
        _m(("assistant", "The assistant begins"), ("user", "Oh"), ("assistant", "Yes")).encode(),
        None,
    ),
    (_m(("user", "A tool between"), ("tool", "21 C"), ("assistant", "Warm")).encode(), None),
    (_m(("user", ""), ("assistant", "To an empty question")).encode(), None),
    (_m(("user", "An empty answer"), ("assistant", "")).encode(), "no_answer"),
    (_m(("user", "日本語で答えて 🦊"), ("assistant", "はい")).encode(), None),
    (_m(("user", "Lines\u2028and\u2029separators"), ("assistant", "a\r\nb\tc")).encode(), None),
    (
        _m(
            ("user", "Extra columns"),
            ("assistant", "kept"),
            score=0.1,
            tags=["a", None],
            deep={"a": [1]},
        ).encode(),
        None,
    ),
    (_m(("user", "word " * 20_000), ("assistant", "long " * 20_000)).encode(), None),
    (
        _m(
            ("user", "An ordinary question"), ("assistant", "An ordinary answer"), again=True
        ).encode(),
        "duplicate",
    ),
    (b"  " + _m(("user", "Blanks around"), ("assistant", "fine")).encode() + b"  ", None),
    (
        _m(
            ("user", "<|im_end|></s>[INST] {{jinja}}"), ("assistant", "=cmd|' /C calc'!A0")
        ).encode(),
        None,
    ),
    (b"{", "malformed_row"),
    (b"not JSON", "malformed_row"),
    (b"[1, 2]", "malformed_row"),
    (b'"a string"', "malformed_row"),
    (b"null", "malformed_row"),
    (_m(("user", "Cut off")).encode()[:-4], "malformed_row"),
    (b'{"messages": "not a list"}', "malformed_row"),
    (b'{"messages": [5]}', "malformed_row"),
    (b'{"text": "no messages"}', "missing_field"),
    (b'{"messages": null}', "missing_field"),
    (b'{"messages": [{"role": "user"}]}', "missing_field"),
    (_m(("narrator", "Once")).encode(), "unknown_role"),
    (b'{"messages": []}', "empty_conversation"),
    (_m(("user", " "), ("assistant", "\n")).encode(), "empty_conversation"),
    (_m(("assistant", "Nobody asked")).encode(), "no_user_turn"),
    (_m(("user", 7), ("assistant", "seven")).encode(), "not_text"),
    (b'{"messages": [{"role": "user", "content": "\xff\xfe"}]}', "invalid_utf8"),
    (_m(("user", "a\0b"), ("assistant", "NUL")).encode(), "nul_byte"),
    (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', "lone_surrogate"),
]


@pytest.mark.flow
@pytest.mark.parametrize("strategy", ["diverse", "random"])
def test_of_34_odd_rows_none_is_lost(strategy: str, tiny: None, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    assert len(ODD) == 34
    pool = tmp_path / "odd.jsonl"
    pool.write_bytes(b"".join(line + b"\n" for line, _ in ODD))
    places = [
        "--input",
        str(pool),
        "--output",
        str(tmp_path / "out"),
        "--store",
        str(tmp_path / "store"),
        "--strategy",
        strategy,
    ]
    assert ended("select", *places, "--budget", "6", "--min-good-fraction", "0") == 0
    rows = pq.read_table(tmp_path / "out" / "decisions.parquet").to_pylist()
    assert [row["source_row"] for row in rows] == list(range(1, 35))
    for row, (line, reason) in zip(rows, ODD, strict=True):
        if reason == "duplicate":
            assert (row["decision"], row["duplicate_of"]) == ("duplicate", rows[0]["id"]), line
        elif reason is not None:
            assert row["decision"] == "quarantined", line
            assert str(row["reason"]).split(":")[0] == reason, line
        else:
            assert row["decision"] in ("selected", "too_similar", "below_budget", "unscorable"), (
                line
            )
            assert row["decision"] != "unscorable" or row["reason"], line
            assert row["decision"] != "too_similar" or (
                row["nearest_id"] and row["similarity"] > 0.9
            ), line
    counts = json.loads((tmp_path / "out" / "manifest.json").read_text())["counts"]
    assert counts["read"] == 34
    assert counts["quarantined"] == sum(reason not in (None, "duplicate") for _, reason in ODD)


@pytest.mark.flow
@pytest.mark.usefixtures("prefect_server", "offline")
def test_the_preset_mini_with_its_real_model(tmp_path: Path) -> None:
    """Seven rows, four of them near-repetitions that any sentence encoder knows: the better of each
    pair stays, with no network.
    """
    pairs = [
        ("How do I bake sourdough bread at home", "How do I bake sourdough bread at home today"),
        (
            "Explain how photosynthesis works in green plants",
            "Explain how photosynthesis works in all green plants",
        ),
    ]
    others = [
        "Write a haiku on winter",
        "What is the capital of Peru",
        "Prove that the root of two is irrational",
    ]
    answer = "Here is an answer in a few plain words"
    asked = [text for pair in pairs for text in pair] + others
    rows = [
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]}
        for text in asked
    ]
    pool = write_rows(tmp_path / "pool.jsonl", rows)
    assert (
        ended(
            "select",
            "--input",
            str(pool),
            "--output",
            str(tmp_path / "out"),
            "--store",
            str(tmp_path / "store"),
            "--budget",
            "7",
        )
        == 0
    )
    import pyarrow.parquet as pq

    by_text = dict(
        zip(asked, pq.read_table(tmp_path / "out" / "decisions.parquet").to_pylist(), strict=True)
    )
    better = [max(pair, key=lambda text: by_text[text]["evol_score"]) for pair in pairs]
    worse = [one if two == best else two for (one, two), best in zip(pairs, better, strict=True)]
    assert {text for text, row in by_text.items() if row["decision"] == "selected"} == {
        *better,
        *others,
    }
    assert [(by_text[text]["decision"], by_text[text]["nearest_id"]) for text in worse] == [
        ("too_similar", by_text[best]["id"]) for best in better
    ]
    models = json.loads((tmp_path / "out" / "manifest.json").read_text())["models"]
    assert [(model["use"], model["licence"]) for model in models] == [("embedding", "apache-2.0")]


@pytest.mark.parametrize("blank", ["", "  "])
@pytest.mark.parametrize("flag", ["--input", "--output", "--store"])
def test_a_blank_place_is_a_mistake_and_not_this_folder(
    flag: str, blank: str, small_pool: Path, tmp_path: Path, capsys: Any
) -> None:
    given = {
        "--input": str(small_pool),
        "--output": str(tmp_path / "out"),
        "--store": str(tmp_path / "store"),
        flag: blank,
    }
    with pytest.raises(SystemExit) as ended:
        main(["select", *(word for pair in given.items() for word in pair)])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "blank" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("flag", ["--output", "--store"])
def test_what_a_run_writes_may_not_become_pool(
    flag: str, small_pool: Path, tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "pools").mkdir()
    (tmp_path / "pools" / "a.jsonl").write_bytes(small_pool.read_bytes())
    inside = str(tmp_path / "pools" / "inside")
    given = {
        "--input": str(tmp_path / "pools"),
        "--output": str(tmp_path / "out"),
        "--store": str(tmp_path / "store"),
        flag: inside,
    }
    with pytest.raises(SystemExit) as ended:
        main(["select", *(word for pair in given.items() for word in pair)])
    assert ended.value.code == 2
    assert "lies in the input" in capsys.readouterr().err


def failure(error: Exception) -> logging.LogRecord:
    """What Prefect logs of it."""
    return logging.LogRecord(
        "prefect.flow_runs",
        logging.ERROR,
        "",
        0,
        "Encountered %r",
        (error,),
        (type(error), error, None),
    )


def test_a_known_failure_is_a_line_in_the_log_and_no_traceback() -> None:
    from prefect.logging.loggers import get_logger

    import deita_tasks.tasks  # noqa: F401 - it sees to it

    for name in ("flow_runs", "task_runs"):
        known, unknown = failure(InputError("no rows")), failure(RuntimeError("a defect"))
        assert get_logger(name).filter(known)
        assert known.exc_info is None
        assert get_logger(name).filter(unknown)
        assert unknown.exc_info is not None


@pytest.mark.parametrize(("terminal", "verbose"), [(True, False), (True, True), (False, False)])
def test_on_a_terminal_it_is_the_command_s_last_line_alone(
    terminal: bool, verbose: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = {
        name: logging.Logger(name) for name in ("prefect.flow_runs", "prefect.task_runs")
    }  # not those that other tests go on with
    monkeypatch.setattr("flows.cli.app.logging", SimpleNamespace(getLogger=logs.__getitem__))
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    quiet_prefect(verbose)
    for log in logs.values():
        assert bool(log.filter(failure(InputError("no rows")))) is not (terminal and not verbose)
        assert log.filter(failure(RuntimeError("a defect")))


def test_the_summary_names_at_most_five_values_that_vanished(
    capsys: pytest.CaptureFixture[str],
) -> None:
    values = [
        VanishedValue(column="kind", value=f"\x1b[31m{number}", rows=30, expected=3.04)
        for number in range(7)
    ]
    findings = Findings(unanswered_exchanges=2, unanswered_rows=1, vanished=values)
    console = printing.new_console()
    printing._print_findings(console, findings, {"too_similar": 0, "duplicate": 0})
    shown = capsys.readouterr().out
    lines = shown.splitlines()[1:]
    assert lines[0] == "2 exchanges without an answer in 1 conversation were not scored."
    assert lines[1].endswith(
        "0: 30 of the pool have it, and a random selection would have about 3.0"
    )
    assert [line.startswith("WARNING: no selected row has kind = ") for line in lines[1:6]] == [
        True
    ] * 5
    assert lines[6:] == ["and 2 more such values; report.html shows them all"]
    assert "\x1b" not in shown
