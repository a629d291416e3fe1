"""Labels with a known rule, in the files that the training of the mini scorers reads."""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterable, Mapping
from pathlib import Path

from deita_tasks.strict_json import JSON
from fitting.labels import (
    CONSTRAINTS,
    GENERAL,
    HARMLESS,
    MEASURED,
    QUALITY_FAMILIES,
    SAME_PROMPTS,
)

DEMANDS = (
    "Explain why it matters.",
    "Compare it with two alternatives.",
    "It must rhyme.",
    "Use exactly one example.",
    "Justify every step.",
)
TOPICS = ("tea", "boats", "chess", "rivers", "verbs", "stars", "taxes", "bread")


def append_rows(path: Path, rows: Iterable[Mapping[str, JSON]]) -> None:
    with lzma.open(path, "at", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def write_labels(folder: Path) -> None:
    """Write labels by two rules.

    The more demands, the harder. The better response has more different words; the worse one
    repeats itself.
    """
    append_rows(folder / "complexity.jsonl.xz", complexity_rows())
    points: list[Mapping[str, JSON]] = []
    comparisons: list[Mapping[str, JSON]] = []
    sources = [name for names in QUALITY_FAMILIES.values() for name in names] + [HARMLESS]
    for number, source in enumerate(sources):
        for topic in TOPICS * 3:
            instruction = f"{source} asks about {topic} {len(points) + len(comparisons)}"
            words = [f"{chr(97 + i)}word{number}" for i in range(12 + len(comparisons) % 5)]
            good = f"On {topic}: {' '.join(words)}."
            bad = f"On {topic}: {' '.join(words[:3] * 4)} and"
            row: dict[str, JSON] = {"source": source, "instruction": instruction}
            if source.endswith(("human", "test")):
                comparisons.append({**row, "response_a": bad, "response_b": good, "pref": 2})
            else:
                points.append({**row, "response": good, "score": 9})
                points.append({**row, "response": bad, "score": 2})
    append_rows(folder / "quality_point.jsonl.xz", points)
    append_rows(folder / "quality_pair.jsonl.xz", comparisons)


def complexity_rows() -> list[dict[str, JSON]]:
    rows: list[dict[str, JSON]] = []
    for source in (GENERAL, SAME_PROMPTS, *CONSTRAINTS, *MEASURED):
        for topic in TOPICS:
            for level in range(6):
                text = " ".join([f"Tell me about {topic}.", *DEMANDS[:level]])
                rows.append(
                    {
                        "source": source,
                        "instruction": f"{source} asks: {text}",
                        "label": float(level),
                        "group": topic if source in CONSTRAINTS else None,
                    }
                )
    return rows
