"""The published scorers give published scores, where both are at hand (opt-in).

MIG (github.com/yichengchen24/MIG) publishes conversations with the scores that DEITA's scorers gave
them, in data/example.jsonl. To run: DEITA_GOLDEN_ROWS names that file, DEITA_COMPLEXITY_SCORER and
DEITA_QUALITY_SCORER the folders of hkust-nlp/deita-complexity-scorer and -quality-scorer.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from deita_tasks.conversations import Turn
from deita_tasks.records import SCORE_KINDS
from deita_tasks.scoring import load_scorer

ROWS = os.environ.get("DEITA_GOLDEN_ROWS")
# Of the first two rows, by _id.
SCORES = {
    "09968d11fd5b70c445cf361e": {"complexity": 2.035370713781308, "quality": 3.5785536465098664},
    "5228de5ad3bc9bd47723dfdc": {"complexity": 1.999543748914027, "quality": 2.980803492688863},
}


@pytest.mark.skipif(ROWS is None, reason="DEITA_GOLDEN_ROWS names no published rows")
@pytest.mark.parametrize("kind", SCORE_KINDS)
def test_the_published_scorers_give_the_published_scores(kind: str) -> None:
    folder = os.environ.get(f"DEITA_{kind.upper()}_SCORER")
    if folder is None:
        pytest.skip(f"DEITA_{kind.upper()}_SCORER names no checkpoint")
    lines = Path(str(ROWS)).read_text(encoding="utf-8").splitlines()[:2]
    rows = {row["_id"]: row["dialogs"] for row in map(json.loads, lines)}
    assert rows.keys() == SCORES.keys()
    scorer = load_scorer("causal_lm", kind=kind, model=folder)
    for name, dialog in rows.items():
        question, answer = (Turn(turn["role"], turn["content"]) for turn in dialog)
        (score,) = scorer.score([(question.content, answer.content)])
        # Published from bfloat16 on a GPU.
        assert score == pytest.approx(SCORES[name][kind], abs=0.02)
