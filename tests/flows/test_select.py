"""The flow, end to end, on pools small enough to say by hand what must come out."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from deita_tasks.errors import TooManyBadRows
from tests.support import components
from tests.support.flow_fixtures import AGAIN, BAD, BASE
from tests.support.flow_runs import SHARD_ROWS, Run, run
from tests.support.selection_reference import sequential
from tests.support.small_pool import ROWS, Row, ranked, row_id, row_score, write_rows

pytestmark = pytest.mark.flow

STAGES = ("complexity", "quality", "embedding")
SHORT = BASE[30]
DISTINCT = BASE[:31]
NOTHING = dict.fromkeys(STAGES, 0)
Again = Callable[..., Run]


def score(row: Row) -> float:
    """As `row_score`; the row SHORT has 4 words and a response without a word, which scores 1."""
    return row_score(row) if row is not SHORT else 1 + 5 * 4 / 29


def expected(rows: Any, budget: int) -> tuple[list[str], list[Any]]:
    """The paper's rule over `rows`, one pair of rows at a time."""
    vectors = [
        components.vector_of(" ".join(turn["content"] for turn in row["messages"])) for row in rows
    ]
    return sequential(
        [row_id(row) for row in rows], [score(row) for row in rows], vectors, budget, 0.9
    )


# ---- one run


def test_the_selection_is_the_papers_rule(base: Run) -> None:
    kept, rejected = expected(DISTINCT, 10)
    assert base.kept == kept
    assert len(kept) == 10
    told = {
        row["id"]: row
        for row in base.decisions
        if row["decision"] in ("too_similar", "below_budget")
    }
    assert {one.id: (one.reason, one.nearest_id or None) for one in rejected} == {
        id: (row["decision"], row["nearest_id"]) for id, row in told.items()
    }
    assert {one.reason for one in rejected} == {"too_similar", "below_budget"}, (
        "the pool shows too little"
    )


def test_the_counts_add_up_and_are_told_alike_everywhere(base: Run) -> None:
    _, rejected = expected(DISTINCT, 10)
    reasons = Counter(one.reason for one in rejected)
    counts = {
        "read": 33,
        "selected": 10,
        **reasons,
        "duplicate": 1,
        "quarantined": 1,
        "unscorable": 0,
        "stratum_full": 0,
        "contaminated": 0,
        "too_long": 0,
    }
    assert base.result["counts"] == counts
    assert base.manifest["counts"] == counts
    assert sum(counts.values()) == 2 * counts["read"]
    told = Counter(row["decision"] for row in base.decisions)
    assert {name: told[name] for name in counts if name != "read"} == {
        name: n for name, n in counts.items() if name != "read"
    }
    assert len(base.selected) == counts["selected"]


def test_every_line_has_its_decision(base: Run) -> None:
    rows = base.decisions
    assert [row["source_row"] for row in rows] == list(range(1, 34))
    duplicate, bad = rows[31], rows[32]
    assert (duplicate["decision"], duplicate["duplicate_of"]) == ("duplicate", row_id(ROWS[3]))
    assert bad["decision"] == "quarantined"
    assert bad["reason"].startswith("no_user_turn")
    for row, asked in zip(rows[:31], DISTINCT, strict=True):
        assert row["id"] == row_id(asked)
        assert row["evol_score"] == pytest.approx(score(asked), rel=1e-6)
        assert len(row["complexity"]) == sum(turn["role"] == "user" for turn in asked["messages"])
    by_rank = sorted((row for row in rows if row["rank"]), key=lambda row: row["rank"])
    assert [row["id"] for row in by_rank] == [
        row_id(row) for row in sorted(DISTINCT, key=lambda row: (-score(row), row_id(row)))
    ]


def test_the_subset_has_the_pools_format_and_columns(base: Run) -> None:
    by_id = {row_id(row): row for row in DISTINCT}
    for line in base.selected:
        row = by_id[line["deita_id"]]
        assert line["messages"] == row["messages"]
        assert line["number"] == row["number"]


def test_the_manifest_says_how_it_was_made(base: Run) -> None:
    manifest = base.manifest
    assert manifest["computed"] == dict.fromkeys(STAGES, 31)
    assert manifest["reused"] == NOTHING
    pool = base.output.parent / "pool.jsonl"
    digest = "sha256:" + hashlib.sha256(pool.read_bytes()).hexdigest()
    assert manifest["inputs"] == [
        {"uri": str(pool), "digest": digest, "rows": 33, "format": "messages"}
    ]
    assert manifest["preset"] == "mini"
    assert manifest["parameters"]["selection"]["budget"] == 10
    assert set(manifest["timings"]) >= {"load", *STAGES, "select"}
    files = {path.name for path in base.output.iterdir()} - {"manifest.json"}
    assert (
        set(manifest["outputs"]) == files >= {"selected.jsonl", "decisions.parquet", "report.html"}
    )
    for name, facts in manifest["outputs"].items():
        content = (base.output / name).read_bytes()
        assert facts == {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}


def test_the_store_is_laid_out_as_promised(base: Run) -> None:
    shards = -(-31 // SHARD_ROWS)
    for kind in ("scores/complexity", "scores/quality", "embeddings"):
        (family,) = (base.store / kind).iterdir()
        assert len(list(family.glob("part-*.parquet"))) == shards
        assert (family / "fingerprint.json").is_file()
    (pool,) = (base.store / "pools").iterdir()
    assert {path.name for path in pool.iterdir()} == {
        "pool.json",
        "rows-00000.parquet",
        "quarantine.parquet",
    }
    (selection,) = (base.store / "selections").iterdir()
    assert pq.read_table(selection / "decisions.parquet").to_pylist() == base.decisions
    everything = [path for path in base.store.rglob("*") if path.is_file()]
    assert not [
        path
        for path in everything
        if path.read_bytes()[:2] == b"\x80\x04" or b"pickle" in path.read_bytes()
    ]


# ---- the same again: what is there is never computed again


def test_a_second_run_computes_nothing(base: Run, tiny: None, tmp_path: Path) -> None:
    second = run(base.output.parent / "pool.jsonl", base.store, tmp_path / "out")
    assert second.result["computed"] == NOTHING
    assert second.result["reused"] == dict.fromkeys(STAGES, 31)
    assert (components.embedded, components.scored) == ([], [])
    assert second.result["tasks"] == {stage: {"cached": 4, "run": 0} for stage in STAGES}
    for name in ("selected.jsonl", "decisions.parquet"):
        assert (second.output / name).read_bytes() == (base.output / name).read_bytes()


def test_a_second_run_shows_its_tasks_as_cached(base: Run, tiny: None, tmp_path: Path) -> None:
    """As Prefect itself tells: all but the export, which is always made."""
    states = watched_states(
        lambda: run(base.output.parent / "pool.jsonl", base.store, tmp_path / "out")
    )
    assert Counter(states.values()) == {"Cached": 1 + 3 * 4 + 1, "Completed": 1}
    assert {name for name, state in states.items() if state == "Completed"} == {"export"}


def watched_states(call: Callable[[], Any]) -> dict[str, str]:
    """The final state of each task run that `call` makes, by the run's name."""
    from prefect.task_engine import SyncTaskRunEngine

    states: dict[str, str] = {}
    real = SyncTaskRunEngine.set_state

    def set_state(self: Any, state: Any, force: bool = False) -> Any:
        final = real(self, state, force=force)
        if final.is_final():
            states[self.task_run.name] = final.name
        return final

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SyncTaskRunEngine, "set_state", set_state)
        call()
    return states


@pytest.mark.parametrize("budget", [4, 30])
def test_another_budget_recomputes_nothing_and_nests(budget: int, again: Again, base: Run) -> None:
    other = again(budget=budget)
    assert other.result["computed"] == NOTHING
    assert (components.embedded, components.scored) == ([], [])
    assert other.kept == expected(DISTINCT, budget)[0]
    shorter, longer = sorted([other.kept, base.kept], key=len)
    assert longer[: len(shorter)] == shorter


@pytest.mark.parametrize(
    ("stage", "damage"),
    [
        ("quality", "cut short"),
        ("quality", "one byte"),
        ("embedding", "deleted"),
        ("embedding", "one byte"),
    ],
)
def test_only_a_lost_part_is_computed_again(
    stage: str, damage: str, again: Again, base: Run, tmp_path: Path
) -> None:
    parts = sorted(
        (tmp_path / "store").glob(
            "embeddings/*/part-*" if stage == "embedding" else f"scores/{stage}/*/part-*"
        )
    )
    part = min(parts, key=lambda path: pq.read_metadata(path).num_rows)  # the last one: 7 rows
    held = pq.read_table(part)
    content = part.read_bytes()
    if damage == "deleted":
        part.unlink()
    elif damage == "cut short":
        part.write_bytes(content[: len(content) // 2])
    else:
        ids = pq.read_metadata(part).row_group(0).column(0)
        place = (
            (ids.dictionary_page_offset or ids.data_page_offset) + ids.total_compressed_size - 3
        )  # in the column's last page
        part.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    mended = again()
    assert held.num_rows == 7
    assert mended.result["computed"] == {**NOTHING, stage: 7}
    assert mended.result["reused"] == {
        name: 31 - mended.result["computed"][name] for name in STAGES
    }
    assert mended.result["tasks"][stage] == {"cached": 3, "run": 1}
    if stage == "embedding":
        assert sorted(components.embedded) == sorted(held["id"].to_pylist())
    assert (mended.output / "selected.jsonl").read_bytes() == (
        base.output / "selected.jsonl"
    ).read_bytes()
    assert pq.read_table(part).sort_by("id").equals(held.sort_by("id"))


@pytest.mark.parametrize(
    "lost",
    [
        "pools/*/rows-00000.parquet",
        "pools/*/pool.json",
        "selections/*/decisions.parquet",
        "selections",
    ],
)
def test_a_lost_pool_or_selection_is_made_again(
    lost: str, again: Again, base: Run, tmp_path: Path
) -> None:
    from deita_tasks import storage

    (path,) = (tmp_path / "store").glob(lost)
    storage.remove(str(path))
    mended = again()
    assert mended.result["computed"] == NOTHING
    assert (mended.output / "decisions.parquet").read_bytes() == (
        base.output / "decisions.parquet"
    ).read_bytes()


def test_one_row_more_computes_one_row(again: Again, tmp_path: Path) -> None:
    new = {
        "messages": [
            {"role": "user", "content": "A new one on chess: " + "why " * 40},
            {"role": "assistant", "content": "So " * 70},
        ]
    }
    rows = [
        {
            **new,
            "messages": [{**turn, "content": turn["content"].strip()} for turn in new["messages"]],
        }
    ]
    more = again([*BASE[:12], *rows, *BASE[12:]])
    assert more.result["computed"] == dict.fromkeys(STAGES, 1)
    assert more.result["reused"] == dict.fromkeys(STAGES, 31)
    assert components.embedded == [row_id(rows[0])]
    assert more.result["counts"]["read"] == 34
    assert more.kept == expected([*DISTINCT, *rows], 10)[0]
    assert row_id(rows[0]) in more.kept


def test_the_order_of_the_rows_changes_nothing(again: Again, base: Run) -> None:
    shuffled = sorted(BASE, key=lambda row: hashlib.md5(str(row["number"]).encode()).digest())
    assert shuffled != list(BASE)
    other = again(shuffled)
    assert other.result["computed"] == NOTHING
    assert other.kept == base.kept
    assert {**other.result["counts"]} == base.result["counts"]


def test_fewer_rows_compute_nothing_and_the_others_do_not_show(again: Again) -> None:
    fewer = again(ROWS[:20])
    assert fewer.result["computed"] == NOTHING
    assert fewer.result["reused"] == dict.fromkeys(STAGES, 20)
    assert fewer.result["counts"]["read"] == 20
    assert fewer.kept == expected(ROWS[:20], 10)[0]


# ---- other strategies, inputs, places


def test_the_best_scores_need_no_vectors(again: Again) -> None:
    top = again(strategy="top_score", budget=5)
    assert top.kept == ranked(ROWS)[:5]
    assert components.embedded == []
    assert "embedding" not in top.result["tasks"]
    assert top.manifest["fingerprints"]["embedding"] is None
    assert top.manifest["models"] == []


def test_several_files_of_several_formats(tiny: None, tmp_path: Path) -> None:
    sharegpt = write_rows(
        tmp_path / "in" / "a.jsonl",
        [
            {
                "conversations": [
                    {"from": "human", "value": f"On stars {n}"},
                    {"from": "gpt", "value": "It is far. " * n},
                ]
            }
            for n in (1, 2, 3)
        ],
    )
    alpaca = write_rows(
        tmp_path / "in" / "b.json",
        [{"instruction": "Bake bread", "input": "", "output": "Knead it. " * 9, "level": 2}],
    )
    mixed = run(
        [str(tmp_path / "in")], tmp_path / "store", tmp_path / "out", strategy="top_score", budget=2
    )
    assert [(file["uri"], file["format"], file["rows"]) for file in mixed.manifest["inputs"]] == [
        (str(sharegpt), "sharegpt", 3),
        (str(alpaca), "alpaca", 1),
    ]
    assert mixed.selected[0]["instruction"] == "Bake bread"
    assert mixed.selected[1]["conversations"][0] == {"from": "human", "value": "On stars 3"}
    assert [(row["source_uri"], row["source_row"]) for row in mixed.decided("selected")] == [
        (str(sharegpt), 3),
        (str(alpaca), 1),
    ]


@pytest.mark.parametrize("store", [".deita", "../beside/store", "with space/ünïcode%20"])
def test_a_store_may_lie_anywhere(
    store: str, tiny: None, tmp_path: Path, small_pool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "work"
    here.mkdir()
    monkeypatch.chdir(here)
    first = run(small_pool, Path(store), Path("out"), strategy="top_score", budget=3)
    assert first.kept == ranked(ROWS)[:3]
    second = run(small_pool, Path(store), Path("out2"), strategy="top_score", budget=3)
    assert second.result["tasks"]["quality"] == {"cached": 4, "run": 0}
    beyond = {path.name for path in tmp_path.iterdir()} | {path.name for path in here.iterdir()}
    assert beyond <= {"work", "beside", ".deita", "with space", "out", "out2"}, (
        "something was written outside of the store"
    )


def test_overwrite_replaces_the_whole_result(tiny: None, tmp_path: Path, small_pool: Path) -> None:
    run(
        small_pool,
        tmp_path / "store",
        tmp_path / "out",
        strategy="top_score",
        budget=3,
        output_format="parquet",
    )
    second = run(
        small_pool,
        tmp_path / "store",
        tmp_path / "out",
        strategy="top_score",
        budget=4,
        overwrite=True,
    )
    assert len(second.kept) == 4
    assert {path.suffix for path in second.output.iterdir()} == {
        ".jsonl",
        ".json",
        ".parquet",
        ".html",
        ".md",
        ".yaml",
    }
    assert {path.name for path in second.output.glob("*.parquet")} == {"decisions.parquet"}


# ---- what goes wrong


def broken(reasons: dict[str, int]) -> list[Row]:
    rows: dict[str, Row] = {
        "no_user_turn": BAD,
        "empty_conversation": {"messages": []},
        "unknown_role": {"messages": [{"role": "narrator", "content": "Once"}]},
    }
    return [rows[reason] for reason, count in reasons.items() for _ in range(count)]


def test_too_many_bad_rows_end_the_run_with_the_commonest_reasons(
    tiny: None, tmp_path: Path
) -> None:
    pool = write_rows(
        tmp_path / "pool.jsonl",
        [*ROWS, *broken({"unknown_role": 2, "no_user_turn": 3, "empty_conversation": 1})],
    )
    with pytest.raises(TooManyBadRows) as caught:
        run(pool, tmp_path / "store", tmp_path / "out")
    said = str(caught.value)
    assert "30 of 36 rows are good" in said
    lines = said.split("\n")
    starts = [line.split(", first ")[0].strip() for line in lines[1:4]]
    assert starts == ["no_user_turn: 3 rows", "unknown_role: 2 rows", "empty_conversation: 1 row"]
    assert all(" row " in line and line.count(": ") > 1 for line in lines[1:4])
    assert "quarantine.parquet" in said
    assert caught.value.exit_status == 1
    assert not (tmp_path / "out").exists()
    assert (components.embedded, components.scored) == ([], []), (
        "nothing is computed for a pool that is not fit"
    )


def test_a_share_that_is_just_enough(tiny: None, tmp_path: Path) -> None:
    """30 of 32 is 0.9375 exactly."""
    pool = write_rows(
        tmp_path / "pool.jsonl", [*ROWS, *broken({"unknown_role": 1, "no_user_turn": 1})]
    )
    given = {"strategy": "top_score", "budget": 3}
    assert (
        run(pool, tmp_path / "store", tmp_path / "out", min_good_fraction=0.9375, **given).result[
            "counts"
        ]["quarantined"]
        == 2
    )
    with pytest.raises(TooManyBadRows):
        run(pool, tmp_path / "store", tmp_path / "out2", min_good_fraction=0.9376, **given)


def test_a_pool_of_bad_rows_alone_is_told_of(tiny: None, tmp_path: Path) -> None:
    pool = write_rows(tmp_path / "pool.jsonl", [BAD, BAD])
    done = run(pool, tmp_path / "store", tmp_path / "out", min_good_fraction=0)
    assert done.result["counts"] == {
        **dict.fromkeys(done.result["counts"], 0),
        "read": 2,
        "quarantined": 2,
    }
    assert done.selected == []
    assert [row["decision"] for row in done.decisions] == ["quarantined"] * 2


def test_a_row_that_has_no_score_is_unscorable_and_not_lost(tiny: None, tmp_path: Path) -> None:
    """Row 28 has two user turns and the second response has no score; row 31 has the zero vector;
    both stand twice.
    """
    zero = {
        "messages": [
            {"role": "user", "content": "Why is the sky blue"},
            {"role": "assistant", "content": "It scatters"},
        ]
    }
    components.problems["again again"] = "no digit has any probability"
    sick = [row for row in ROWS if row["number"] % 4 == 0]
    rows = [*ROWS, zero, ROWS[27], zero]
    pool = write_rows(tmp_path / "pool.jsonl", rows)
    done = run(
        pool, tmp_path / "store", tmp_path / "out", min_good_fraction=0.5, budget=30
    )  # every row is reached
    unscorable = {row["source_row"]: row["reason"] for row in done.decided("unscorable")}
    assert set(unscorable) == {row["number"] for row in sick} | {31}
    assert unscorable[28] == "quality: turn 2: no digit has any probability"
    assert "vector" in unscorable[31]
    assert [row["source_row"] for row in done.decided("duplicate")] == [32, 33]
    assert done.result["counts"]["unscorable"] == len(sick) + 1
    assert sum(done.result["counts"].values()) == 2 * len(rows)
    healthy = [row for row in ROWS if row not in sick]
    assert done.kept == expected(healthy, 30)[0]
    with pytest.raises(TooManyBadRows) as caught:
        run(pool, tmp_path / "store", tmp_path / "out2", min_good_fraction=0.95, budget=30)
    assert "quality: turn 2: no digit has any probability: 7 rows" in str(caught.value)
    assert not (tmp_path / "out2").exists()


def test_a_shard_that_fails_is_tried_again(tiny: None, tmp_path: Path, small_pool: Path) -> None:
    components.faults["reason 12.3"] = 2
    done = run(small_pool, tmp_path / "store", tmp_path / "out", retries=2)
    assert components.faults["reason 12.3"] == 0
    assert done.kept == expected(ROWS, 10)[0]
    assert done.result["computed"] == dict.fromkeys(STAGES, 30)


def test_a_shard_that_keeps_failing_ends_the_run_after_the_others(
    tiny: None, tmp_path: Path, small_pool: Path
) -> None:
    """And what the others computed stays: the next run computes the 8 rows of that shard and no
    others.
    """
    components.faults["reason 12.3"] = 99
    with pytest.raises(RuntimeError, match=r"a hiccup at 'reason 12\.3'"):
        run(small_pool, tmp_path / "store", tmp_path / "out", retries=1)
    assert components.faults["reason 12.3"] == 97, "tried twice"
    assert not (tmp_path / "out").exists()
    assert len(list((tmp_path / "store").glob("scores/quality/*/part-*"))) == 3
    components.reset()
    done = run(small_pool, tmp_path / "store", tmp_path / "out")
    assert done.result["computed"] == {"complexity": 0, "quality": 8, "embedding": 30}
    assert done.kept == expected(ROWS, 10)[0]


def test_the_duplicate_is_the_later_row_wherever_it_stands(again: Again) -> None:
    other = again([AGAIN, *BASE[:31]])
    (duplicate,) = other.decided("duplicate")
    assert duplicate["source_row"] == 5
    assert other.decisions[0]["id"] == row_id(ROWS[3])
    assert other.decisions[0]["decision"] != "duplicate"


def test_rows_with_one_text_and_other_images_are_computed_once(tiny: None, tmp_path: Path) -> None:
    row = ROWS[0]
    images = [{**row, "image": f"{number}.png"} for number in range(21)]
    first = run(write_rows(tmp_path / "a.jsonl", images), tmp_path / "store", tmp_path / "a")
    second = run(write_rows(tmp_path / "b.jsonl", [row]), tmp_path / "store", tmp_path / "b")
    assert len({row["id"] for row in first.decisions}) == 21
    assert first.manifest["computed"] == dict.fromkeys(STAGES, 1)
    assert first.manifest["reused"] == dict.fromkeys(STAGES, 20)
    assert (len(first.decided("selected")), len(first.decided("too_similar"))) == (1, 20)
    assert second.manifest["computed"] == NOTHING


def test_scores_in_the_rows_are_their_own(tiny: None, tmp_path: Path) -> None:
    images = [
        {**ROWS[0], "image": f"{score}.png", "quality_scores": [score]} for score in (2.0, 5.0, 3.0)
    ]
    pool = write_rows(tmp_path / "pool.jsonl", images)
    ran = run(pool, tmp_path / "store", tmp_path / "out", quality="provided", budget=1)
    assert [row["quality"] for row in ran.decisions] == [[2.0], [5.0], [3.0]]
    assert [row["image"] for row in ran.selected] == ["5.0.png"]
    assert ran.manifest["computed"] == {"complexity": 1, "quality": 3, "embedding": 1}
