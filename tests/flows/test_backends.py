"""Backends through the whole flow: what the user brings, a server, a checkpoint of .bin files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from deita_tasks.conversations import Conversation
from deita_tasks.embedding.vicuna import render_vicuna
from deita_tasks.loading import read_conversations
from tests.scoring.test_causal_lm import text_of
from tests.support.checkpoints import llama, reference_ids, reference_model
from tests.support.completions_server import Script, serving
from tests.support.flow_runs import run
from tests.support.small_pool import ROWS, row_id, write_rows

pytestmark = pytest.mark.flow
KEY = "sk-a-key-that-nobody-should-see"


def with_columns(rows: Any = ROWS[:6]) -> list[dict[str, Any]]:
    """Scores and vectors by hand: row n scores n/2+1 and 2 a user turn, and lies at the angle n *
    15 degrees.
    """
    made = []
    for number, row in enumerate(rows):
        turns = sum(turn["role"] == "user" for turn in row["messages"])
        angle = np.deg2rad(15 * number)
        columns = {"complexity_scores": [number / 2 + 1] * turns, "quality_scores": [2.0] * turns}
        made.append({**row, **columns, "embedding": [float(np.cos(angle)), float(np.sin(angle))]})
    return made


PROVIDED = {"complexity": "provided", "quality": "provided", "embedding": "provided"}


def test_scores_and_vectors_from_columns(prefect_server: None, tmp_path: Path) -> None:
    rows = with_columns()
    pool = write_rows(tmp_path / "pool.jsonl", rows)
    done = run(
        pool, tmp_path / "store", tmp_path / "out", max_similarity=0.9, shard_rows=4, **PROVIDED
    )
    scores = {row_id(row): sum(c * 2 for c in row["complexity_scores"]) for row in rows}
    ranked = sorted(scores, key=lambda one: (-scores[one], one))
    kept: list[str] = []
    order = [row_id(row) for row in rows]
    for one in ranked:  # cos 15° = 0.966, cos 30° = 0.866
        if all(abs(order.index(one) - order.index(other)) >= 2 for other in kept):
            kept.append(one)
    assert done.kept == kept
    decisions = {row["id"]: row for row in done.decisions}
    for row in rows:
        assert decisions[row_id(row)]["complexity"] == row["complexity_scores"]
        assert decisions[row_id(row)]["quality"] == row["quality_scores"]
    assert done.manifest["computed"] == dict.fromkeys(("complexity", "quality", "embedding"), 6)
    again = run(
        pool, tmp_path / "store", tmp_path / "out2", max_similarity=0.9, budget=1, **PROVIDED
    )
    assert again.manifest["reused"] == dict.fromkeys(("complexity", "quality", "embedding"), 6)
    assert again.kept == kept[:1]


def test_another_value_of_the_same_row_is_not_taken_from_the_store(
    prefect_server: None, tmp_path: Path
) -> None:
    rows = with_columns()
    run(
        write_rows(tmp_path / "a" / "pool.jsonl", rows),
        tmp_path / "store",
        tmp_path / "out",
        **PROVIDED,
    )
    rows[0]["complexity_scores"] = [6.0] * len(rows[0]["complexity_scores"])
    done = run(
        write_rows(tmp_path / "b" / "pool.jsonl", rows),
        tmp_path / "store",
        tmp_path / "out2",
        **PROVIDED,
    )
    assert done.kept[0] == row_id(rows[0])


def test_a_row_without_a_value_is_unscorable_and_says_why(
    prefect_server: None, tmp_path: Path
) -> None:
    rows = with_columns()
    del rows[1]["quality_scores"]
    rows[2]["complexity_scores"][0] = 6.5
    rows[3]["embedding"] = [1.0, 2.0, 3.0]
    rows[4]["embedding"] = None
    for shard_rows in (2, 6):
        done = run(
            write_rows(tmp_path / f"{shard_rows}" / "pool.jsonl", rows),
            tmp_path / f"store{shard_rows}",
            tmp_path / f"out{shard_rows}",
            shard_rows=shard_rows,
            min_good_fraction=0.1,
            **PROVIDED,
        )
        assert {row["source_row"]: row["reason"] for row in done.decided("unscorable")} == {
            2: "quality: its row has no column 'quality_scores'",
            3: "complexity: 6.5 is not in [1, 6]; for another range set complexity_scale",
            4: "embedding: its vector has 3 numbers, others have 2",
            5: "embedding: its column 'embedding' is null",
        }
        assert len(done.kept) == 2


def test_a_vector_of_another_width_is_unscorable_also_where_it_is_alone_in_its_shard(
    prefect_server: None, tmp_path: Path
) -> None:
    rows = with_columns()
    rows[0]["embedding"] = [1.0, 2.0, 3.0]  # the first part that is looked at
    rows[3]["embedding"] = [1.0, 2.0, 3.0]
    pool = write_rows(tmp_path / "pool.jsonl", rows)
    done = run(
        pool,
        tmp_path / "store",
        tmp_path / "out",
        shard_rows=1,
        min_good_fraction=0.5,
        max_similarity=1.0,
        **PROVIDED,
    )
    why = "embedding: its vector has 3 numbers, where most have 2"
    assert {row["source_row"]: row["reason"] for row in done.decided("unscorable")} == {
        1: why,
        4: why,
    }
    assert sorted(done.kept) == sorted(row_id(rows[number]) for number in (1, 2, 4, 5))


def test_the_ledger_of_one_run_gives_the_scores_of_another(
    prefect_server: None, tmp_path: Path
) -> None:
    rows = ROWS[:8]
    pool = write_rows(tmp_path / "pool.jsonl", rows)
    first = run(pool, tmp_path / "store", tmp_path / "out", strategy="top_score")
    ledger = str(tmp_path / "out" / "decisions.parquet")
    given = {
        "complexity": "provided",
        "quality": "provided",
        "scores_file": ledger,
        "strategy": "top_score",
    }
    assert run(pool, tmp_path / "other", tmp_path / "out2", **given).kept == first.kept


def test_a_score_for_a_whole_row_counts_once(prefect_server: None, tmp_path: Path) -> None:
    """By the key "doc"; the last row has three turns."""
    rows: list[dict[str, Any]] = [
        {"doc": doc, "messages": turns(doc, count)} for doc, count in (("a", 1), ("b", 2), ("c", 3))
    ]
    marks = tmp_path / "marks.csv"
    marks.write_text("doc,complexity,quality\nc,2,0\nb,2,50\na,3,100\n")
    of_rows = {
        "complexity": "provided",
        "quality": "provided",
        "scores_file": str(marks),
        "scores_key": "doc",
        "complexity_per": "row",
        "quality_per": "row",
        "quality_scale": "0..100",
        "strategy": "top_score",
    }
    pool = write_rows(tmp_path / "pool.jsonl", rows)
    done = run(pool, tmp_path / "store", tmp_path / "out", **of_rows)
    assert [row["evol_score"] for row in done.decisions] == [3 * 6, 2 * 3.5, 2 * 1]
    of_turns = {**of_rows, "complexity": "instruction_length", "complexity_per": None}
    mixed = run(pool, tmp_path / "store", tmp_path / "out2", **of_turns)
    for row, quality in zip(mixed.decisions, (6, 3.5, 1), strict=True):
        assert row["evol_score"] == pytest.approx(sum(row["complexity"]) * quality)
    assert [len(row["complexity"]) for row in mixed.decisions] == [1, 2, 3]


def turns(name: str, count: int) -> list[dict[str, str]]:
    return [
        {"role": role, "content": f"{role} {name} {turn}"}
        for turn in range(count)
        for role in ("user", "assistant")
    ]


def test_vectors_from_a_file_by_row(prefect_server: None, tmp_path: Path) -> None:
    rows = with_columns()
    pool = write_rows(tmp_path / "pool.jsonl", rows)
    table = pa.table(
        {
            "source_row": list(range(6, 0, -1)),
            "embedding": [row["embedding"] for row in reversed(rows)],
        }
    )
    pq.write_table(table, tmp_path / "v.parquet", row_group_size=2)
    of_rows = run(pool, tmp_path / "store", tmp_path / "out", **PROVIDED)
    of_file = run(
        pool,
        tmp_path / "store",
        tmp_path / "out2",
        embeddings_file=str(tmp_path / "v.parquet"),
        **PROVIDED,
    )
    assert of_file.kept == of_rows.kept
    assert of_file.manifest["computed"]["embedding"] == 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llama(tmp_path_factory.mktemp("llama"), max_position_embeddings=512)


def everything_below(*folders: Path) -> list[tuple[Path, bytes]]:
    return [
        (path, path.read_bytes())
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file()
    ]


def test_a_server_gives_the_selection_of_the_checkpoint_and_the_key_is_nowhere(
    prefect_server: None, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key comes from a Prefect Secret block; the server fails twice on the way."""
    from prefect.blocks.system import Secret

    Secret(value=KEY).save("scores-key", overwrite=True)  # type: ignore[arg-type]
    monkeypatch.setattr("deita_tasks.scoring.http_client._growing_pause", lambda state: 0.01)
    rows = write_rows(tmp_path / "pool.jsonl", ROWS[:6])
    checkpoint = {
        "complexity_model": str(folder),
        "quality_model": str(folder),
        "strategy": "top_score",
    }
    with serving(Script(folder)) as server:
        server.faults = [None, (500, {}), "drop"]
        urls = {
            "complexity_url": server.url,
            "quality_url": server.url,
            "api_key_block": "scores-key",
        }
        asked = run(
            rows,
            tmp_path / "store",
            tmp_path / "out",
            complexity="openai",
            quality="openai",
            **urls,
            **checkpoint,
        )
        assert set(server.keys) == {f"Bearer {KEY}"}
    direct = run(
        rows,
        tmp_path / "store",
        tmp_path / "out2",
        complexity="causal_lm",
        quality="causal_lm",
        score_dtype="float32",
        **checkpoint,
    )
    assert asked.kept == direct.kept
    for one, other in zip(asked.decisions, direct.decisions, strict=True):
        np.testing.assert_allclose(one["complexity"], other["complexity"], atol=1e-3)
        np.testing.assert_allclose(one["quality"], other["quality"], atol=1e-3)
    files = everything_below(tmp_path)
    assert len(files) > 10
    assert not [path for path, content in files if KEY.encode() in content]
    assert (
        json.loads(json.dumps(asked.manifest["fingerprints"]))["quality"]["base_url"] == server.url
    )


def test_a_secret_block_that_is_not_there(
    prefect_server: None, folder: Path, tmp_path: Path
) -> None:
    from deita_tasks.errors import UsageError

    given = {
        "quality": "judge",
        "quality_model": "m",
        "quality_url": "http://127.0.0.1:9/v1",
        "api_key_block": "nobody-s",
    }
    with pytest.raises(UsageError, match="no such Secret block"):
        run(
            write_rows(tmp_path / "pool.jsonl", ROWS[:2]),
            tmp_path / "store",
            tmp_path / "out",
            strategy="top_score",
            **given,
        )


# ---- the look before the work


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the preflights of a run say in its log."""
    from types import SimpleNamespace

    from deita_tasks.tasks import loading, preflight

    lines: list[str] = []
    logger = SimpleNamespace(
        **dict.fromkeys(("info", "warning"), lambda text, *given: lines.append(text % given))
    )
    for module in (loading, preflight):
        monkeypatch.setattr(module, "get_run_logger", lambda: logger)
    return lines


def test_a_run_looks_at_its_models_first_and_only_where_they_have_work(
    prefect_server: None, folder: Path, tmp_path: Path, said: list[str]
) -> None:
    pool = write_rows(tmp_path / "pool.jsonl", ROWS[:6])
    given = {
        "quality": "causal_lm",
        "quality_model": str(folder),
        "score_dtype": "float32",
        "strategy": "top_score",
    }
    run(pool, tmp_path / "store", tmp_path / "out", **given)
    checks = [line for line in said if not line.startswith("reading")]
    assert [line.split(":")[0] for line in checks] == [
        "quality",
        "complexity",
    ]  # the first stage's model is loaded last
    assert "0 of 6 sampled rows are over 512 tokens" in checks[0]
    said.clear()
    run(pool, tmp_path / "store", tmp_path / "out2", budget=2, **given)
    assert said == []
    run(
        pool,
        tmp_path / "store",
        tmp_path / "out3",
        complexity="causal_lm",
        complexity_model=str(folder),
        **given,
    )
    assert [line.split(":")[0] for line in said] == ["complexity"]


def test_an_unfit_model_is_told_before_the_first_shard(
    prefect_server: None, tmp_path: Path
) -> None:
    from deita_tasks.errors import ModelError
    from tests.support.checkpoints import write_model, write_sentencepiece

    write_sentencepiece(tmp_path / "headless")
    write_model(tmp_path / "headless", head=False)
    pool = write_rows(tmp_path / "pool.jsonl", ROWS[:6])
    with pytest.raises(ModelError, match="lm_head"):
        run(
            pool,
            tmp_path / "store",
            tmp_path / "out",
            quality="causal_lm",
            quality_model=str(tmp_path / "headless"),
            strategy="top_score",
        )
    assert not list((tmp_path / "store" / "scores").rglob("part-*"))


def test_what_may_pass_does_not_stop_a_run(
    prefect_server: None, tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from deita_tasks.tasks import preflight

    def hiccup(*_: Any) -> None:
        raise RuntimeError("out of something")

    monkeypatch.setattr(preflight, "check", hiccup)
    done = run(
        write_rows(tmp_path / "pool.jsonl", ROWS[:6]),
        tmp_path / "store",
        tmp_path / "out",
        strategy="top_score",
    )
    assert len(done.kept) == 6
    assert sum("preflight failed" in line and "out of something" in line for line in said) == 2


def test_the_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No server, no store, no output: only a look."""
    from flows.cli.app import main

    pool = write_rows(tmp_path / "pool.jsonl", ROWS)
    store = ["--store", str(tmp_path / "store")]
    model = ["--quality", "causal_lm", "--quality-model", str(folder), "--score-dtype", "float32"]
    with pytest.raises(SystemExit) as ended:
        main(["preflight", "--input", str(pool), *store, *model])
    assert ended.value.code == 0
    told = " ".join(capsys.readouterr().out.split())
    for words in (
        "mini",
        "causal_lm",
        "float32 on cpu",
        "512 tokens",
        "of 30 rows",
        "sentence_transformers",
        "256 tokens",
    ):
        assert words in told
    assert not list((tmp_path / "store").rglob("*")) or not list(
        (tmp_path / "store").rglob("*.parquet")
    )
    with pytest.raises(SystemExit) as ended:
        main(["preflight", "--input", str(pool), "--quality", "judge", *store])
    assert ended.value.code == 2
    assert "option 'model' is required" in capsys.readouterr().err


def test_the_paper_s_preset_with_checkpoints_of_one_s_own(
    prefect_server: None, tmp_path: Path
) -> None:
    """Held to the method itself, written out: whole models, one text at a time, every row beside
    every kept one.
    """
    seeds = {"complexity": 1, "quality": 2, "embedding": 3}
    folders = {
        use: llama(tmp_path / use, seed=seed, max_position_embeddings=1024)
        for use, seed in seeds.items()
    }
    models = {use: reference_model(folder) for use, folder in folders.items()}
    pool = write_rows(tmp_path / "pool.jsonl", ROWS[:12])
    rows = {row.id: row for row in read_conversations(str(pool)) if isinstance(row, Conversation)}

    def read(use: str, text: str) -> Any:
        ids = [
            i for part in text.split("</s>") for i in (2, *reference_ids(folders[use], part)[1:])
        ]
        with torch.no_grad():
            return models[use](torch.tensor([[1, *ids[1:]]]), output_hidden_states=True)

    def score(use: str, pair: tuple[str, str]) -> float:
        digits = [
            reference_ids(folders[use], text_of(use, ("x", "y")) + digit)[-1] for digit in "123456"
        ]
        return float(
            read(use, text_of(use, pair)).logits[0, -1, digits].double().softmax(0)
            @ torch.arange(1.0, 7.0).double()
        )

    scores = {
        id: [(score("complexity", pair), score("quality", pair)) for pair in row.pairs]
        for id, row in rows.items()
    }
    evol = {
        id: sum(complexity * quality for complexity, quality in turns)
        for id, turns in scores.items()
    }
    ranked = sorted(rows, key=lambda id: (-evol[id], id))
    unit = torch.nn.functional.normalize(
        torch.stack(
            [read("embedding", render_vicuna(rows[id])).hidden_states[-1][0, -1] for id in ranked]
        )
    )
    similar = (unit @ unit.T).numpy()
    apart = np.sort(similar[np.triu_indices(len(ranked), 1)])
    limit = float(
        apart[len(apart) // 2 : len(apart) // 2 + 2].mean()
    )  # halfway between two of them
    kept: list[int] = []
    for row in range(len(ranked)):
        if all(similar[row, other] <= limit for other in kept):
            kept.append(row)

    checkpoints = {f"{use}_model": str(folder) for use, folder in folders.items()}
    exact = {"score_dtype": "float32", "embedding_dtype": "float32", "device": "cpu"}
    done = run(
        pool,
        tmp_path / "store",
        tmp_path / "out",
        preset="paper",
        budget=12,
        max_similarity=limit,
        **checkpoints,
        **exact,
    )
    assert done.kept == [ranked[row] for row in kept]
    assert 1 < len(kept) < len(ranked) == done.manifest["counts"]["read"]
    assert {row["id"] for row in done.decided("too_similar")} == set(ranked) - set(done.kept)
    for row in done.decisions:
        np.testing.assert_allclose(
            np.stack([row["complexity"], row["quality"]], 1), scores[row["id"]], atol=1e-5
        )
    assert {model["use"]: model["id"] for model in done.manifest["models"]} == {
        use: str(folder) for use, folder in folders.items()
    }


def test_ranking_by_scores_with_ranges_of_their_own(prefect_server: None, tmp_path: Path) -> None:
    """Rows 0 to 5 have the marks 5, 4, ... 0, and row 5 none; only what rank_by names is computed,
    and a run again takes it from the store.
    """
    model = str(llama(tmp_path / "model"))
    rows = [{**row, "a mark": float(5 - number)} for number, row in enumerate(ROWS[:6])]
    del rows[5]["a mark"]
    pool = write_rows(tmp_path / "pool.jsonl", rows)
    options = {"language_model": model, "strategy": "top_score", "ifd_below": 1e9, "budget": 2}
    expression = '0 * ifd + provided:"a mark" - length / length'
    first = run(
        pool,
        tmp_path / "store",
        tmp_path / "out",
        rank_by=expression,
        evol_score="max",
        min_good_fraction=0.5,
        **options,
    )
    assert first.kept == [row_id(row) for row in rows[:2]]
    decisions = {row["id"]: row for row in first.decisions}
    for number, row in enumerate(rows[:5]):
        found = decisions[row_id(row)]
        assert found["evol_score"] == 4 - number and found["complexity"] is None
        scores = {score["name"]: score["values"] for score in found["scores"]}
        assert scores['provided:"a mark"'] == [5 - number] and len(scores["ifd"]) >= 1
    missing = decisions[row_id(rows[5])]
    assert missing["decision"] == "unscorable"
    assert missing["reason"] == "provided:\"a mark\": its row has no column 'a mark'"
    assert first.manifest["fingerprints"]["selection"]["rank_by"] == expression
    assert first.manifest["computed"] == {
        **dict.fromkeys(("complexity", "quality", "embedding"), 0),
        **dict.fromkeys(("ifd", 'provided:"a mark"'), 6),
    }
    report = (tmp_path / "out" / "report.html").read_text()
    assert "ifd of a user turn" in report and "complexity of a user turn" not in report
    second = run(pool, tmp_path / "store", tmp_path / "out2", rank_by="-ifd", **options)
    assert second.manifest["reused"]["ifd"] == 6
    ifds = {id: row["scores"][0]["values"] for id, row in decisions.items() if row["scores"]}
    order = sorted(ifds, key=lambda id: (sum(ifds[id]), id))
    assert second.kept == order[:2]
