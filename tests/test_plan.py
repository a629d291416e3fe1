"""What a run's parameters become, and what is found wrong in them before anything is read."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from deita_tasks.config import (
    Advanced,
    Embedding,
    Export,
    Filtering,
    Grid,
    Output,
    Scoring,
    Selection,
    Source,
    Versions,
)
from deita_tasks.errors import DeitaError, InputError, OutputExists, UsageError
from deita_tasks.plan import (
    Plan,
    RunSettings,
    check_output,
    embedder_spec,
    plan_grid,
    plan_run,
    scorer_spec,
)
from deita_tasks.presets import (
    COMPLEXITY_SCORER,
    MINILM,
    MINILM_REVISION,
    PAPER_EMBEDDER,
    QUALITY_SCORER,
)
from tests.support.tiny_base import write_base


def planned(tmp_path: Path, pool: Path | str, preset: Any = "mini", **groups: Any) -> Plan:
    given = {
        "source": Source(input=[str(pool)]),
        "scoring": Scoring(),
        "embedding": Embedding(),
        "selection": Selection(budget=5),
        "export": Export(output=str(tmp_path / "out")),
        "advanced": Advanced(store=str(tmp_path / "store")),
    }
    return plan_run(preset=preset, **{**given, **groups})


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({}, None),
        ({"strategy": "top_score"}, None),
        ({"strategy": "quality_only"}, None),
        ({"strategy": "k_center"}, "the strategy k_center looks at every row"),
        ({"strategy": "mmr"}, "the strategy mmr looks at every row"),
        ({"strategy": "random"}, "the strategy random looks at every row"),
        ({"strategy": "length"}, "a ranking by length says nothing about scores"),
        ({"ranking": "length"}, "a ranking by length says nothing about scores"),
        ({"budget": "all"}, "a budget of all rows needs every row"),
    ],
)
def test_lazy_where_the_strategy_stops_at_the_budget(
    options: dict[str, Any], why: str | None, tmp_path: Path
) -> None:
    pool = tmp_path / "pool.jsonl"
    pool.write_text("{}\n")
    plan = planned(tmp_path, pool, selection=Selection(**{"budget": 5, **options}))
    assert plan.is_lazy == (why is None)
    assert (plan.why_all or "").startswith(why or "")
    complete = Selection(**{"budget": 5, "evaluation": "all", **options})
    whole = planned(tmp_path, pool, selection=complete)
    assert not whole.is_lazy


# ---- what strategies compare rows with


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "relevance"}, "the strategy 'relevance' needs target files"),
        ({"strategy": "mig"}, "the strategy 'mig' needs the column with the tags"),
        ({"target": ["x.jsonl"]}, "the strategy 'diverse' has no such option"),
        (
            {"strategy": "mig", "tags": "t", "target": ["x"]},
            "the strategy 'mig' has no such option",
        ),
    ],
)
def test_a_reference_that_does_not_fit(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        planned(tmp_path, tmp_path / "pool.jsonl", selection=Selection(budget=5, **options))


def test_vectors_of_ones_own_have_none_for_a_target(tmp_path: Path) -> None:
    target = tmp_path / "target.jsonl"
    target.write_text('{"prompt": "Why?"}\n')
    selection = Selection(budget=5, strategy="relevance", target=[str(target)])
    (tmp_path / "pool.jsonl").write_text("{}\n")
    with pytest.raises(UsageError, match="'provided' has no vectors of target rows"):
        planned(
            tmp_path,
            tmp_path / "pool.jsonl",
            selection=selection,
            embedding=Embedding(embedding="provided"),
        )


# ---- which component, with which options


def test_the_preset_speaks_where_nothing_is_said() -> None:
    assert scorer_spec("mini", "complexity", Scoring()) == {
        "name": "mini",
        "options": {"kind": "complexity"},
    }
    assert scorer_spec("mini", "quality", Scoring()) == {
        "name": "mini",
        "options": {"kind": "quality"},
    }
    assert embedder_spec("mini", Embedding()) == {
        "name": "sentence_transformers",
        "options": {"model": MINILM},
    }
    paper = scorer_spec("paper", "complexity", Scoring())
    assert paper == {
        "name": "causal_lm",
        "options": {"kind": "complexity", "model": COMPLEXITY_SCORER},
    }
    assert scorer_spec("paper", "quality", Scoring())["options"]["model"] == QUALITY_SCORER
    assert embedder_spec("paper", Embedding()) == {
        "name": "causal_lm",
        "options": {"model": PAPER_EMBEDDER},
    }


def test_an_option_goes_to_its_own_component() -> None:
    scoring = Scoring(
        quality_model="me/other", quality_revision="v2", score_max_length=512, score_dtype="float32"
    )
    assert scorer_spec("paper", "quality", scoring)["options"] == {
        "kind": "quality",
        "model": "me/other",
        "revision": "v2",
        "max_length": 512,
        "dtype": "float32",
    }
    assert scorer_spec("paper", "complexity", scoring)["options"] == {
        "kind": "complexity",
        "model": COMPLEXITY_SCORER,
        "max_length": 512,
        "dtype": "float32",
    }
    embedding = Embedding(embedding_max_length=128)
    assert embedder_spec("mini", embedding)["options"] == {
        "model": MINILM,
        "max_length": 128,
    }


def test_another_backend_leaves_the_presets_options_behind() -> None:
    assert scorer_spec("paper", "quality", Scoring(quality="response_length")) == {
        "name": "response_length",
        "options": {"kind": "quality"},
    }
    other = embedder_spec("mini", Embedding(embedding="causal_lm", embedding_model="me/base"))
    assert other == {"name": "causal_lm", "options": {"model": "me/base"}}


def test_the_strategy_that_multiplies_matrices_gets_the_device(
    tmp_path: Path, small_pool: Path
) -> None:
    """It changes nothing that is selected, so it names nothing."""
    here, by_default = (
        planned(tmp_path, small_pool, advanced=Advanced(device=device))
        for device in ("cpu", "auto")
    )
    assert here.specs["selection"]["options"] == {
        **by_default.specs["selection"]["options"],
        "device": "cpu",
    }
    assert here.fingerprints() == by_default.fingerprints()
    top = planned(
        tmp_path,
        small_pool,
        selection=Selection(strategy="top_score"),
        advanced=Advanced(device="cpu"),
    )
    assert "device" not in top.specs["selection"]["options"]


def test_the_device_goes_only_to_what_has_a_model() -> None:
    assert (
        scorer_spec("paper", "quality", Scoring(), RunSettings("cpu"))["options"]["device"] == "cpu"
    )
    assert (
        "device"
        not in scorer_spec(
            "mini", "quality", Scoring(quality="response_length"), RunSettings("cpu")
        )["options"]
    )
    assert embedder_spec("mini", Embedding(), RunSettings("cuda"))["options"]["device"] == "cuda"


@pytest.mark.parametrize(
    ("selection", "wanted"),
    [
        (Selection(budget=7), {"name": "diverse", "options": {"budget": 7, "max_similarity": 0.9}}),
        (
            Selection(budget=7, max_similarity=0.5),
            {"name": "diverse", "options": {"budget": 7, "max_similarity": 0.5}},
        ),
        (
            Selection(budget=7, max_similarity=0.0),
            {"name": "diverse", "options": {"budget": 7, "max_similarity": 0.0}},
        ),
        (
            Selection(budget=7, strategy="top_score"),
            {"name": "top_score", "options": {"budget": 7}},
        ),
        (
            Selection(budget=7, strategy="k_center", candidates=9),
            {"name": "k_center", "options": {"budget": 7, "candidates": 9}},
        ),
        (
            Selection(budget=7, strategy="mmr", target_size="exact"),
            {"name": "mmr", "options": {"budget": 7}},
        ),
        (
            Selection(budget=7, strategy="random", seed=3),
            {"name": "random", "options": {"budget": 7, "seed": 3}},
        ),
        (
            Selection(budget=7, metric="euclidean", min_distance=0.5),
            {
                "name": "diverse",
                "options": {"budget": 7, "metric": "euclidean", "min_distance": 0.5},
            },
        ),
        (
            Selection(budget=7, metric="dot", max_similarity=3.5),
            {"name": "diverse", "options": {"budget": 7, "metric": "dot", "max_similarity": 3.5}},
        ),
        (
            Selection(
                budget=7,
                strategy="top_score",
                ranking="length",
                evol_score="mean",
                strata="source_uri",
                per_stratum=2,
            ),
            {
                "name": "top_score",
                "options": {
                    "budget": 7,
                    "ranking": "length",
                    "evol_score": "mean",
                    "strata": "source_uri",
                    "per_stratum": 2,
                },
            },
        ),
    ],
)
def test_a_strategy_has_the_options_that_it_has(
    selection: Selection, wanted: dict[str, Any], tmp_path: Path, small_pool: Path
) -> None:
    assert planned(tmp_path, small_pool, selection=selection).specs["selection"] == wanted


def test_only_the_diverse_strategy_embeds(tmp_path: Path, small_pool: Path) -> None:
    assert planned(tmp_path, small_pool).embedder is not None
    top = planned(tmp_path, small_pool, selection=Selection(strategy="top_score"))
    assert top.embedder is None
    assert top.fingerprints()["embedding"] is None
    assert [model.use for model in top.models()] == []


def test_the_plan_says_models_and_fingerprints(tmp_path: Path, small_pool: Path) -> None:
    plan = planned(tmp_path, small_pool)
    assert plan.files == [str(small_pool)]
    assert [model.to_dict() for model in plan.models()] == [
        {"use": "embedding", "id": MINILM, "revision": MINILM_REVISION, "licence": "apache-2.0"}
    ]
    fingerprints = plan.fingerprints()
    assert set(fingerprints) == {"complexity", "quality", "embedding", "selection"}
    assert json.loads(json.dumps(fingerprints)) == fingerprints
    assert fingerprints["complexity"]["backend"] == "mini"


def test_fingerprints_do_not_know_how_a_run_goes(tmp_path: Path, small_pool: Path) -> None:
    one = planned(
        tmp_path,
        small_pool,
        embedding=Embedding(embedding_dtype="float32"),
        advanced=Advanced(device="cpu"),
    )
    other = planned(
        tmp_path,
        small_pool,
        embedding=Embedding(embedding_dtype="float32"),
        advanced=Advanced(shard_rows=2, retries=9),
    )
    assert one.fingerprints() == other.fingerprints()
    budget = planned(tmp_path, small_pool, selection=Selection(budget=6))
    assert budget.fingerprints()["selection"] != one.fingerprints()["selection"]
    assert budget.fingerprints()["embedding"] == one.fingerprints()["embedding"]


# ---- what is wrong


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        (
            {"selection": Selection(budget=5, candidates=9)},
            "candidates = 9: the strategy 'diverse' has no such option",
        ),
        (
            {"selection": Selection(strategy="random", max_similarity=0.5)},
            "max_similarity = 0.5: the strategy 'random' has no such option",
        ),
        (
            {"scoring": Scoring(complexity="response_length")},
            "scorer 'response_length': kind: 'complexity' arrived",
        ),
        ({"scoring": Scoring(quality_model="me/other")}, "scorer 'mini': unknown option 'model'"),
        ({"scoring": Scoring(score_compile=True)}, "scorer 'mini': unknown option 'compile'"),
        (
            {"scoring": Scoring(complexity="causal_lm")},
            "scorer 'causal_lm': option 'model' is required",
        ),
    ],
)
def test_options_that_no_component_takes_are_errors(
    groups: dict[str, Any], said: str, tmp_path: Path, small_pool: Path
) -> None:
    with pytest.raises(UsageError) as caught:
        planned(tmp_path, small_pool, **groups)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["no-such-file.jsonl", "no-such-*.jsonl", "empty"])
def test_a_pool_that_is_not_there(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError) as caught:
        planned(tmp_path, tmp_path / name)
    assert name in str(caught.value)
    assert caught.value.exit_status == 2


def test_an_unknown_scheme(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected a path"):
        planned(tmp_path, "gopher://old/pool.jsonl")


def test_a_folder_of_pools_is_its_data_files(tmp_path: Path, small_pool: Path) -> None:
    """The same rule as read_conversations: a README beside the data is no pool."""
    folder = tmp_path / "pools"
    folder.mkdir()
    for name in ("b.jsonl", "a.jsonl", "README.md"):
        (folder / name).write_bytes(small_pool.read_bytes())
    assert planned(tmp_path, folder).files == [str(folder / "a.jsonl"), str(folder / "b.jsonl")]


def test_a_file_that_is_named_twice_is_read_once(tmp_path: Path, small_pool: Path) -> None:
    source = Source(
        input=[str(small_pool), str(small_pool.parent), str(small_pool.parent / "*.jsonl")]
    )
    assert planned(tmp_path, small_pool, source=source).files == [str(small_pool)]


def test_a_plan_reads_no_pool_and_loads_no_model(tmp_path: Path) -> None:
    pool = tmp_path / "pool.jsonl"
    pool.write_bytes(b"\xff not a pool")
    before = set(sys.modules)
    planned(tmp_path, pool)
    assert not {"sentence_transformers", "prefect"} & (set(sys.modules) - before)
    assert not (tmp_path / "store").exists()
    assert not (tmp_path / "out").exists()


# ---- the output folder

RESULT = json.dumps({"format_version": 1, "counts": {}, "fingerprints": {}, "outputs": {}})


def test_an_output_folder_that_is_ours_to_write(tmp_path: Path) -> None:
    check_output(Export(output=str(tmp_path / "new" / "deeper")))
    (tmp_path / "empty").mkdir()
    check_output(Export(output=str(tmp_path / "empty")))


def test_an_earlier_result_is_replaced_only_when_asked(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(RESULT)
    with pytest.raises(OutputExists, match=r"holds an earlier result.*--overwrite"):
        check_output(Export(output=str(tmp_path)))
    check_output(Export(output=str(tmp_path), overwrite=True))


@pytest.mark.parametrize(
    "manifest", [None, "{}", '{"name": "an extension", "manifest_version": 3}', "[]", "not JSON"]
)
def test_what_is_not_ours_is_never_replaced(manifest: str | None, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    if manifest is not None:
        (tmp_path / "manifest.json").write_text(manifest)
    for overwrite in (False, True):
        with pytest.raises(OutputExists, match="not a result of ours"):
            check_output(Export(output=str(tmp_path), overwrite=overwrite))
    with pytest.raises(DeitaError, match=r"thesis\.tex.* expected a folder"):
        check_output(Export(output=str(tmp_path / "thesis.tex"), overwrite=True))


@pytest.mark.parametrize("inside", ["input", "store", "the store itself"])
def test_an_output_may_not_hold_what_the_run_needs(
    inside: str, tmp_path: Path, small_pool: Path
) -> None:
    """--overwrite replaces the whole folder: a pool or a store in it would be lost."""
    output = tmp_path / "out"
    output.mkdir()
    (output / "manifest.json").write_text(RESULT)
    pool, store = small_pool, tmp_path / "store"
    if inside == "input":
        pool = output / "pool.jsonl"
        pool.write_bytes(small_pool.read_bytes())
    elif inside == "store":
        store = output / ".deita"
    else:
        store = output
    with pytest.raises(
        UsageError, match=f"{pool if inside == 'input' else store}, which the run needs"
    ):
        planned(
            tmp_path,
            pool,
            export=Export(output=f"{output}/", overwrite=True),
            advanced=Advanced(store=str(store)),
        )
    (output / "pool.jsonl").unlink(missing_ok=True)
    beside = Advanced(
        store=str(tmp_path / "out-store")
    )  # a name that begins alike is another folder
    assert planned(
        tmp_path, small_pool, export=Export(output=str(output), overwrite=True), advanced=beside
    )


@pytest.mark.parametrize("kind", [Export, Output, Versions])
@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("store/out", "lies in the store"),
        (f"store/selections/{'0' * 32}", "lies in the store"),
        ("link/out", "lies in the store"),
        ("store", "holds the store"),
        (".", "holds the store"),
    ],
)
def test_output_and_store_lie_apart(
    kind: type[Export], output: str, said: str, tmp_path: Path, small_pool: Path
) -> None:
    """What a user keeps in the store, gc might remove; what lies in an output, a new result may."""
    (tmp_path / "store").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "store")
    with pytest.raises(UsageError, match=f"{said} .*choose a folder apart from it"):
        planned(tmp_path, small_pool, export=kind(output=str(tmp_path / output)))
    assert planned(tmp_path, small_pool, export=kind(output=str(tmp_path / "store-out")))


@pytest.mark.parametrize(
    ("store", "becomes_pool"),
    [("", True), ("store", True), (".deita", False), ("_work/store", False)],
)
def test_a_store_may_not_become_pool(
    store: str, becomes_pool: bool, tmp_path: Path, small_pool: Path
) -> None:
    pools = tmp_path / "pools"
    pools.mkdir()
    (pools / "a.jsonl").write_bytes(small_pool.read_bytes())
    advanced = Advanced(store=str(pools / store))
    with pytest.raises(UsageError, match="lies in the input") if becomes_pool else nullcontext():
        planned(tmp_path, pools, advanced=advanced)


# ---- backends with options of their own


def test_a_server_s_options_go_to_the_scorers_behind_one() -> None:
    scoring = Scoring(
        complexity="openai",
        complexity_model="c",
        complexity_url="http://one/v1",
        complexity_tokenizer="me/c",
        quality="judge",
        quality_model="q",
        quality_url="http://two/v1",
        api_key_env="MY_KEY",
        concurrency=3,
        request_timeout=9,
        request_attempts=2,
        score_server="other",
        score_max_length=512,
    )
    of_both = {"api_key_env": "MY_KEY", "concurrency": 3, "timeout": 9, "attempts": 2}
    assert scorer_spec("mini", "complexity", scoring)["options"] == {
        "kind": "complexity",
        "model": "c",
        "base_url": "http://one/v1",
        "tokenizer": "me/c",
        "server": "other",
        "max_length": 512,
        **of_both,
    }
    assert scorer_spec("mini", "quality", scoring)["options"] == {
        "kind": "quality",
        "model": "q",
        "base_url": "http://two/v1",
        **of_both,
    }


def test_an_option_for_both_scorers_is_a_mistake_only_where_neither_takes_it(
    tmp_path: Path, small_pool: Path
) -> None:
    one = Scoring(
        complexity="provided", complexity_column="c", scores_file=None, score_max_length=512
    )
    with pytest.raises(UsageError, match="unknown option 'max_length'"):
        planned(tmp_path, small_pool, scoring=one)
    judged = Scoring(
        quality="judge", quality_model="q", quality_url="http://host/v1", concurrency=3
    )
    assert planned(tmp_path, small_pool, scoring=judged).specs["complexity"]["options"] == {
        "kind": "complexity"
    }
    with pytest.raises(UsageError, match="unknown option 'base_url'"):
        planned(tmp_path, small_pool, scoring=Scoring(complexity_url="http://host/v1"))


@pytest.mark.parametrize(
    ("scoring", "match"),
    [
        (Scoring(quality="openai", quality_model="q"), "option 'base_url' is required"),
        (Scoring(quality="judge", quality_url="http://h/v1"), "option 'model' is required"),
        (
            Scoring(quality="openai", quality_model="q", quality_url="http://h/v1?key=hunter2"),
            "remove them: the key comes from",
        ),
        (Scoring(quality="provided", scores_file="/nowhere/s.parquet"), "no such file"),
    ],
)
def test_what_is_wrong_with_a_backend_is_told_first(
    tmp_path: Path, small_pool: Path, scoring: Scoring, match: str
) -> None:
    with pytest.raises(DeitaError, match=match) as caught:
        planned(tmp_path, small_pool, scoring=scoring)
    assert caught.value.exit_status == 2
    assert "hunter2" not in str(caught.value)


def test_bin_files_are_read_only_where_that_is_said() -> None:
    for spec in (scorer_spec("paper", "quality", Scoring()), embedder_spec("paper", Embedding())):
        assert "allow_bin" not in spec["options"]
    assert (
        scorer_spec("paper", "quality", Scoring(), RunSettings(allow_bin=True))["options"][
            "allow_bin"
        ]
        is True
    )
    assert (
        embedder_spec("paper", Embedding(), RunSettings(allow_bin=True))["options"]["allow_bin"]
        is True
    )
    assert (
        "allow_bin"
        not in scorer_spec("mini", "quality", Scoring(), RunSettings(allow_bin=True))["options"]
    )
    assert (
        "allow_bin"
        not in embedder_spec("mini", Embedding(), RunSettings(allow_bin=True))["options"]
    )


def test_what_is_provided_knows_the_pool(tmp_path: Path, small_pool: Path) -> None:
    scoring = Scoring(complexity="provided", quality="provided", quality_column="q")
    plan = planned(tmp_path, small_pool, scoring=scoring, embedding=Embedding(embedding="provided"))
    assert plan.specs["quality"]["options"] == {
        "kind": "quality",
        "column": "q",
        "pool": [str(small_pool)],
    }
    assert plan.specs["embedding"]["options"] == {"pool": [str(small_pool)]}
    assert plan.fingerprints()["quality"]["column"] == "q"
    assert plan.models() == []


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ("mig", "rank_by with the strategy 'mig': it combines turns by mean"),
        ("quality_only", "with the ranking 'quality'"),
    ],
)
def test_a_sweep_by_an_expression_refuses_what_ranks_otherwise(
    strategy: str, message: str, tmp_path: Path, small_pool: Path
) -> None:
    plan = planned(tmp_path, small_pool, selection=Selection(rank_by="length"))
    with pytest.raises(UsageError, match=message):
        plan_grid(plan, Grid(strategies=["diverse", strategy], rank_by="length", tags="t"))


def test_a_scores_file_is_of_the_named_scores_alone(tmp_path: Path, small_pool: Path) -> None:
    file = tmp_path / "s.jsonl"
    file.write_text('{"id": "a", "help": 1}\n', encoding="utf-8")
    scoring = Scoring(scores_file=str(file))
    selection = Selection(rank_by="complexity * provided:help")
    plan = planned(tmp_path, small_pool, scoring=scoring, selection=selection)
    assert plan.specs["provided:help"]["options"]["file"] == str(file)
    assert "file" not in plan.specs["complexity"]["options"]
    with pytest.raises(UsageError, match="file"):
        planned(tmp_path, small_pool, scoring=scoring)


def test_cuts_and_values_of_whole_rows_exclude_each_other(tmp_path: Path, small_pool: Path) -> None:
    base = str(write_base(tmp_path / "base"))
    filtering = Filtering(tokenizer=base, train_window=64, cut_turns=True)
    plan = planned(tmp_path, small_pool, filtering=filtering)
    assert plan.fingerprints()["tokens"]["cut_turns"] is True
    selection = Selection(rank_by="provided:help")
    with pytest.raises(UsageError, match="cut_turns with provided:help of your own"):
        planned(tmp_path, small_pool, filtering=filtering, selection=selection)
    with pytest.raises(ValueError, match="cut_turns: needs a training window"):
        Filtering(tokenizer=base, cut_turns=True)


# ---- filters


def test_a_budget_in_tokens_needs_a_tokenizer(tmp_path: Path, small_pool: Path) -> None:
    with pytest.raises(UsageError, match="budget_tokens = 1,000: needs a tokenizer"):
        planned(tmp_path, small_pool, selection=Selection(budget_tokens=1000))
    with pytest.raises(UsageError, match="no such folder"):
        planned(tmp_path, small_pool, filtering=Filtering(tokenizer="nowhere"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"budget": 9, "budget_tokens": 1000, "mix": "source=a:0.5,*:0.5"},
            "mix = .* with budget = 9 and budget_tokens = 1,000: mix divides one budget",
        ),
        (
            {"budget_tokens": 1000, "mix": "source=a:2000,*:1"},
            "the amounts add up to 2001 tokens, more than the budget of 1,000",
        ),
        ({"budget": "all", "clusters": 3}, "clusters = 3 and budget = all"),
    ],
)
def test_strata_divide_one_budget(
    options: dict[str, Any], message: str, tmp_path: Path, small_pool: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        planned(tmp_path, small_pool, selection=Selection(**options))


def test_evaluation_files_are_found_before_any_work(tmp_path: Path, small_pool: Path) -> None:
    for name in ("b.jsonl", "a.jsonl"):
        (tmp_path / name).write_text('{"prompt": "Why?"}\n', encoding="utf-8")
    names = [str(tmp_path / "b.jsonl"), str(tmp_path / "a.jsonl")]
    plan = planned(tmp_path, small_pool, filtering=Filtering(decontaminate=names))
    assert plan.filters.decontamination is not None
    assert [Path(file).name for file in plan.filters.decontamination.files] == [
        "a.jsonl",
        "b.jsonl",
    ]
    assert plan.fingerprints()["decontamination"]["share"] == 0.5
    assert "decontamination" not in planned(tmp_path, small_pool).fingerprints()
    with pytest.raises(InputError):
        planned(tmp_path, small_pool, filtering=Filtering(decontaminate="absent.jsonl"))
