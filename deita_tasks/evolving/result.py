"""Write a trained scorer to its output folder: checkpoint, data, card, figures, manifest."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import ModelCardData
from pydantic import JsonValue, NonNegativeInt

from deita_tasks import storage
from deita_tasks.evolving.agreement import Agreement
from deita_tasks.evolving.chains import Chain
from deita_tasks.evolving.data_set import ChainSet, DataFacts, data_table, released_rows
from deita_tasks.evolving.estimate import RoleEstimate
from deita_tasks.evolving.evaluation import ScorerFigures
from deita_tasks.evolving.fit import write_scorer
from deita_tasks.evolving.mini import MiniHead
from deita_tasks.evolving.report import (
    Expected,
    agreement_rows,
    calibration_png,
    calibration_svg,
    chain_rows,
)
from deita_tasks.finetuning.job import LEFT_OUT_FILE, LIBRARIES, TrainedModel, copy_files
from deita_tasks.finetuning.trained import model_uri
from deita_tasks.manifest import PACKAGES, InputFile, ResultManifest, package_versions
from deita_tasks.records import ScoreKind
from deita_tasks.results.alignment import (
    CARD_FILE,
    TrainingFacts,
    base_label,
    card_facts,
    last_step,
    write_curve,
)
from deita_tasks.results.publish import publish_result
from deita_tasks.results.records import ResultRecord
from deita_tasks.scoring.mini.head_file import head_file_name
from deita_tasks.scoring.prompt_encoder import PromptEncoder
from deita_tasks.strict_json import JsonRecord, strict_json
from deita_tasks.templating import escape_markdown, template_environment

CARD_CHAINS = 2  # shown in the card


class ChainCounts(JsonRecord):
    """The chains of a run.

    judged: that have scores. held_out: of these, not trained on. ended: with fewer rounds than
    asked for. without_scores: by reason.
    """

    drawn: NonNegativeInt
    judged: NonNegativeInt
    held_out: NonNegativeInt
    ended: NonNegativeInt
    without_scores: dict[str, NonNegativeInt]

    @classmethod
    def of(cls, chains: ChainSet, held_out: int) -> ChainCounts:
        """Return the counts of a set of chains."""
        problems = Counter(chain.problem for chain in chains.chains if chain.problem)
        return cls(
            drawn=len(chains.chains),
            judged=len(chains.judged),
            held_out=held_out,
            ended=sum(chain.ended is not None for chain in chains.chains),
            without_scores=dict(problems.most_common()),
        )

    def sentences(self) -> list[str]:
        """Return what to know, a line each."""
        lines = [
            f"{self.drawn:,} chains, {self.judged:,} of them judged; {self.held_out:,} are held out"
        ]
        if self.ended:
            lines.append(f"{self.ended:,} chains ended early: no rewrite passed the checks")
        return [*lines, *self.reasons()]

    def reasons(self) -> list[str]:
        """Return why chains have no scores, a line for each reason."""
        counts = self.without_scores.items()
        return [f"{count:,} chains have no scores: {reason}" for reason, count in counts]


class RoleUsage(JsonRecord):
    """What a model was asked for in this run. reused: replies that the store had already."""

    role: str
    requests: NonNegativeInt
    prompt_tokens: NonNegativeInt
    completion_tokens: NonNegativeInt
    reused: NonNegativeInt

    def __str__(self) -> str:
        return (
            f"{self.role}: {self.requests:,} requests, {self.prompt_tokens:,} tokens in and "
            f"{self.completion_tokens:,} out; {self.reused:,} replies were in the store"
        )


class ScorerManifest(ResultManifest):
    """manifest.json of a trained scorer.

    head: the scorer that takes it. training: None for mini, which trains no model.
    """

    head: Literal["causal_lm", "mini"] = "causal_lm"
    kind: ScoreKind
    base: str
    base_identity: dict[str, str]
    data: DataFacts
    chains: ChainCounts
    usage: list[RoleUsage]
    training: TrainingFacts | None
    figures: ScorerFigures
    remedies: list[str]


class TrainedScorer(ResultRecord):
    """A trained scorer in its output folder. Subscripts read the manifest's fields."""

    uri: str
    manifest: ScorerManifest

    def to_json_fields(self) -> dict[str, JsonValue]:
        """Return the fields of the manifest."""
        return self.manifest.to_dict()


class ScorerEstimate(ResultRecord):
    """What a dry run says: the chains, and what each model would be asked for."""

    chains: NonNegativeInt
    roles: list[RoleEstimate]

    def to_json_fields(self) -> dict[str, JsonValue]:
        """Return all fields of the record; an estimate has no manifest."""
        return self.to_dict()

    def sentences(self) -> list[str]:
        """Return the estimate, a line each."""
        return [f"{self.chains:,} chains", *map(str, self.roles)]


@dataclass(frozen=True)
class ScorerResult:
    """What the files of a result show. expected: scores of the texts of `held_out`."""

    kind: ScoreKind
    model: TrainedModel | MiniHead
    encoder: PromptEncoder | None
    chains: ChainSet
    held_out: list[Chain]
    expected: Expected


def write_scorer_result(
    output: str,
    store: str,
    result: ScorerResult,
    figures: ScorerFigures,
    usage: Sequence[RoleUsage],
    inputs: Sequence[InputFile],
    parameters: Mapping[str, JsonValue],
) -> TrainedScorer:
    """Write a trained scorer to the folder `output`, whole or not at all."""
    manifest = ScorerManifest(
        parameters=dict(parameters),
        fingerprints={"training": result.model.address},
        inputs=list(inputs),
        versions=package_versions((*PACKAGES, *LIBRARIES)),
        kind=result.kind,
        data=result.chains.facts,
        chains=ChainCounts.of(result.chains, len(result.held_out)),
        usage=list(usage),
        figures=figures,
        **_model_facts(result.model),
    )
    write = partial(_write_files, store=store, result=result, manifest=manifest)
    return TrainedScorer(uri=output, manifest=publish_result(output, manifest, write))


def _model_facts(model: TrainedModel | MiniHead) -> dict[str, Any]:
    """Return what a manifest says of what was fitted."""
    if isinstance(model, MiniHead):
        facts = {"head": "mini", "base": "mini", "base_identity": {}}
        return {**facts, "training": None, "remedies": []}
    preparation = model.preparation
    return {
        "base": preparation.base_name,
        "base_identity": preparation.job.base,
        "training": TrainingFacts.of(model),
        "remedies": [*preparation.remedies, *preparation.job.warnings],
    }


def _write_files(folder: Path, store: str, result: ScorerResult, manifest: ScorerManifest) -> None:
    """Write the scorer itself, the data that it learned from, the figures and the card.

    A head of `mini` is one file; a trained model is a checkpoint with its prompt.
    """
    if isinstance(result.model, MiniHead):
        copy_files(result.model.folder(store), str(folder), [head_file_name(result.kind)])
    else:
        _write_checkpoint(folder, store, result.model, result.encoder)
    _write_data(folder, result)
    points = manifest.figures.calibration
    (folder / "calibration.png").write_bytes(calibration_png(points))
    (folder / "calibration.svg").write_bytes(calibration_svg(points))
    (folder / CARD_FILE).write_text(render_card(manifest, result), encoding="utf-8")


def _write_checkpoint(
    folder: Path, store: str, model: TrainedModel, encoder: PromptEncoder | None
) -> None:
    """Write a trained model as a scorer that `select` loads, with its curve and left-out rows.

    encoder: of the scorer's prompt. Raises ValueError without it.
    """
    if encoder is None:
        raise ValueError("a trained model needs the encoder of its prompts")
    write_scorer(folder, model, store, encoder)
    copy_files(model_uri(store, model.address), str(folder), [LEFT_OUT_FILE])
    write_curve(folder / "curve.csv", model.outcome.curve)


def _write_data(folder: Path, result: ScorerResult) -> None:
    """Write the judged texts as a table, as conversations and as chains, and the held-out scores.

    chains.jsonl has the chains without scores too.
    """
    judged = result.chains.judged
    held_out = {chain.id for chain in result.held_out}
    table = data_table(judged, held_out, result.chains.facts)
    storage.write_table(str(folder / "scorer_data.parquet"), table)
    _write_lines(folder / "released.jsonl", released_rows(judged))
    _write_lines(folder / "chains.jsonl", [chain.to_dict() for chain in result.chains.chains])
    with (folder / "held_out.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["chain", "round", "judged", "expected"])
        for chain in result.held_out:
            for variant, score in zip(chain.variants, result.expected[chain.id], strict=True):
                writer.writerow([chain.id, variant.round, variant.score, score])


def _write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a JSON line for each row; NaN and the infinities become null."""
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(f"{strict_json(row)}\n")


def render_card(manifest: ScorerManifest, result: ScorerResult) -> str:
    """Return README.md of a scorer: what the hub reads, and what a person asks."""
    figures = manifest.figures
    base = escape_markdown(base_label(manifest.base, manifest.base_identity))
    return (
        template_environment("deita_tasks.reporting")
        .get_template("scorer_card.md.jinja")
        .render(
            front_matter=_front_matter(manifest),
            head=manifest.head,
            title=f"A {manifest.kind} scorer on {base.rsplit('/', 1)[-1]}",
            kind=manifest.kind,
            base=base,
            above_words=figures.is_above_words,
            sentence=escape_markdown(figures.sentence),
            held_out=f"{manifest.chains.held_out:,}",
            agreements=_agreements(figures.held_out),
            labels=_agreements(figures.labelled),
            seen=figures.seen,
            data=_data_lines(manifest),
            chains=[_card_chain(chain, result) for chain in result.held_out[:CARD_CHAINS]],
            training=card_facts(manifest.training) if manifest.training else {},
            remedies=[escape_markdown(line) for line in manifest.remedies],
        )
    )


def _agreements(agreements: Sequence[Agreement]) -> list[list[str]]:
    """Return the lines of a table; of a scorer in a folder of this machine the last name."""
    shown = []
    for each in agreements:
        is_place = each.name.startswith(("/", ".", "~")) or "://" in each.name
        name = last_step(each.name) if is_place else each.name
        shown.append(each.model_copy(update={"name": name}))
    return agreement_rows(shown)


def _front_matter(manifest: ScorerManifest) -> str:
    """Return what the hub reads of a card."""
    licence = manifest.data.licence
    tags = ["deita", f"{manifest.kind}-scorer"]
    of_model: dict[str, Any] = {}
    if manifest.head == "causal_lm":
        tags.append("trl")
        of_model = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    if "revision" in manifest.base_identity:
        of_model["base_model"] = manifest.base
    licence_name = None if licence == "unknown" else licence
    card: str = ModelCardData(license=licence_name, tags=tags, **of_model).to_yaml()
    return card.strip()


def _data_lines(manifest: ScorerManifest) -> list[str]:
    """Return the card's lines on the data, as Markdown: seeds, models, licence, chain counts."""
    data = manifest.data
    lines = [f"seeds from {last_step(file.uri)} ({file.rows:,} rows)" for file in manifest.inputs]
    lines += [
        f"rewritten by {data.rewrite_model}, prompts {data.rewrite_prompts}",
        f"judged by {data.judge_model}, prompt {data.judge_prompt}",
        f"licence: {data.licence}",
        *manifest.chains.sentences(),
    ]
    return [escape_markdown(line) for line in lines]


def _card_chain(chain: Chain, result: ScorerResult) -> dict[str, Any]:
    """Return a chain for the card, its text escaped, because models wrote it.

    instruction: only for quality, where all variants share it.
    """
    names = ("round", "method", "text", "judged", "expected")
    rows = chain_rows([chain], result.expected)
    shown = "" if chain.kind == "complexity" else escape_markdown(chain.instruction)
    return {
        "instruction": shown,
        "rows": [[escape_markdown(str(row[name])) for name in names] for row in rows],
    }
