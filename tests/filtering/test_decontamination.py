"""Which rows repeat an evaluation text, and how much of it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deita_tasks.filtering.decontamination import (
    EvaluationText,
    EvaluationTexts,
    Overlap,
    OverlapRule,
)
from deita_tasks.filtering.words import split_words

# 26 words: 14 n-grams of 13 words.
PROMPT = (
    "A farmer has seventeen sheep and all but nine of them run away through the broken fence "
    "how many sheep does the farmer still have left"
)
WORDS = PROMPT.split()
RULE = OverlapRule()


def evaluation(text: str, row: int = 1, turn: int = 1, role: str = "user") -> EvaluationText:
    return EvaluationText("test.jsonl", row, turn, role, text)  # type: ignore[arg-type]


def find(
    texts: Sequence[EvaluationText], turns: Sequence[str], rule: OverlapRule = RULE
) -> Overlap | None:
    return EvaluationTexts(texts, rule).find_overlaps([turns])[0]


def test_the_prompt_has_26_words() -> None:
    assert len(WORDS) == 26


def test_a_turn_that_is_the_text_is_exact_whatever_its_case_and_punctuation() -> None:
    copy = "  A farmer has SEVENTEEN sheep, and all but nine of them run away" + (
        " (through the broken fence): how many sheep does the farmer still have left?!"
    )
    found = find([evaluation(PROMPT)], ["Hello", "Hi. What do you need?", copy, "Nine."])
    assert found == Overlap("exact", 3, 1.0, 26, evaluation(PROMPT))


@pytest.mark.parametrize(
    ("words", "ngrams"),
    [
        (26, 14),  # all words: 26 - 13 + 1 n-grams
        (20, 8),
        (19, 7),  # 7 of 14: half, the least share that counts
    ],
)
def test_the_share_is_that_of_the_ngrams_found(words: int, ngrams: int) -> None:
    turn = f"Solve this. {' '.join(WORDS[:words])}. Thank you"
    found = find([evaluation(PROMPT)], [turn, "Nine"])
    assert found == Overlap("ngrams", 1, ngrams / 14, words, evaluation(PROMPT))


def test_less_than_half_of_the_ngrams_is_no_contamination() -> None:
    assert find([evaluation(PROMPT)], [f"Solve this. {' '.join(WORDS[:18])}. Thank you"]) is None


def test_a_gap_costs_all_ngrams_across_it() -> None:
    """Words 1 to 16 and 18 to 26 are there. N-grams 1 to 4 end by word 16; those from 5 to 17 hold
    word 17, and only 14 exist.
    """
    turn = f"Solve: {' '.join(WORDS[:16])} XX {' '.join(WORDS[17:])}"
    assert find([evaluation(PROMPT)], [turn]) is None
    found = find([evaluation(PROMPT)], [turn], OverlapRule(share=4 / 14))
    assert found == Overlap("ngrams", 1, 4 / 14, 16, evaluation(PROMPT))


def test_the_turns_of_a_conversation_count_together_and_the_one_with_most_is_named() -> None:
    """Words 1 to 15 hold n-grams 1 to 3, words 10 to 26 hold n-grams 10 to 14: 8 of 14."""
    turns = [f"Say: {' '.join(WORDS[:15])}", "I do.", f"Then {' '.join(WORDS[9:])}", "Nine."]
    found = find([evaluation(PROMPT)], turns)
    assert found == Overlap("ngrams", 3, 8 / 14, 17, evaluation(PROMPT))


def test_no_ngram_crosses_two_turns() -> None:
    assert find([evaluation(PROMPT)], [" ".join(WORDS[:12]), " ".join(WORDS[12:24])]) is None


def test_a_long_run_is_contamination_whatever_its_share() -> None:
    passage = " ".join(f"w{number}" for number in range(1000))
    quote = " ".join(f"w{number}" for number in range(300, 350))  # 50 words: 38 n-grams
    found = find([evaluation(passage)], [f"Quote: {quote}."])
    assert found == Overlap("ngrams", 1, 38 / 988, 50, evaluation(passage))
    assert find([evaluation(passage)], [f"Quote: {quote[:-5]}."]) is None


def test_a_short_prompt_is_found_as_a_whole_turn_only() -> None:
    texts = [evaluation("Who wrote Hamlet?")]
    assert find(texts, ["who wrote HAMLET", "Shakespeare"]) == Overlap("exact", 1, 1.0, 3, texts[0])
    assert find(texts, ["Tell me who wrote Hamlet?", "Shakespeare"]) is None


def test_a_short_answer_says_nothing() -> None:
    assert find([evaluation("Yes.", role="assistant")], ["Is it?", "Yes."]) is None
    long_answer = evaluation(PROMPT, role="assistant")
    assert find([long_answer], ["Tell a riddle", PROMPT]) == Overlap("exact", 2, 1, 26, long_answer)


def test_a_script_without_spaces_counts_by_character() -> None:
    text = "请问一个农夫有十七只羊除了九只都跑了他还剩几只"  # 23 characters: 11 n-grams
    found = find([evaluation(text)], [f"题目:{text}谢谢"])
    assert found == Overlap("ngrams", 1, 1.0, 23, evaluation(text))


def test_the_first_of_equal_evaluation_texts_is_named() -> None:
    texts = [evaluation(PROMPT, row=7), evaluation(PROMPT.upper(), row=3)]
    found = find(texts, [PROMPT])
    assert found is not None
    assert found.evaluation.place == "test.jsonl:3"


def test_a_hash_that_collides_contaminates_no_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """All n-grams of a row hash like one of the evaluation; the words tell them apart."""
    texts = EvaluationTexts([evaluation("a b c d")], OverlapRule(words=4, share=0.5))
    first = texts._hashes[0]
    monkeypatch.setattr(texts, "_hash", lambda words, starts: starts.astype("uint64") * 0 + first)
    assert texts.find_overlaps([["x d c b a a b c a d"], ["z a b c d"]])[0] is None
    assert texts.find_overlaps([["z a b c d"]])[0] is not None


def test_ngrams_of_the_evaluation_with_one_hash_take_another_multiplier(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from deita_tasks.filtering import decontamination

    monkeypatch.setattr(decontamination, "MULTIPLIERS", (0, decontamination.MULTIPLIERS[0]))
    found = find([evaluation("a b c d"), evaluation("a x y z", 2)], ["so: a x y z"], OverlapRule(4))
    assert found is not None
    assert found.evaluation.row == 2


# ---- against an independent computation

texts_of_few_words = st.lists(st.sampled_from("abcd"), min_size=1, max_size=9).map(" ".join)


def expected(
    texts: Sequence[str], turns: Sequence[str], n: int, share: float, run: int
) -> tuple[str, float, int] | None:
    """The kind, share and longest run of the worst overlap, by sets of tuples."""
    spoken = [split_words(turn) for turn in turns]
    have = {tuple(words[i : i + n]) for words in spoken for i in range(len(words) - n + 1)}
    found = []
    for text in texts:
        words = split_words(text)
        if words in spoken:
            found.append((1, 1.0, len(words)))
            continue
        hits = [tuple(words[i : i + n]) in have for i in range(len(words) - n + 1)]
        pieces = "".join("x" if hit else " " for hit in hits).split()
        longest = max(map(len, pieces), default=0)
        if longest and (sum(hits) / len(hits) >= share or longest + n - 1 >= run):
            found.append((0, sum(hits) / len(hits), longest + n - 1))
    if not found:
        return None
    exact, worst_share, longest = max(found)
    return ("exact" if exact else "ngrams", worst_share, longest)


@given(
    st.lists(texts_of_few_words, min_size=1, max_size=6),
    st.lists(st.lists(texts_of_few_words, min_size=1, max_size=3), min_size=1, max_size=6),
    st.sampled_from([0.3, 0.5, 1.0]),
    st.integers(3, 9),
)
def test_the_overlap_is_that_of_sets_of_words(
    texts: list[str], conversations: list[list[str]], share: float, run: int
) -> None:
    rule = OverlapRule(words=3, share=share, run=run)
    index = EvaluationTexts([evaluation(text, i) for i, text in enumerate(texts)], rule)
    overlaps = index.find_overlaps(conversations)
    figures = [found and (found.kind, found.share, found.longest_run) for found in overlaps]
    assert figures == [expected(texts, turns, 3, share, run) for turns in conversations]


@given(st.lists(texts_of_few_words, max_size=6), st.randoms(use_true_random=False))
def test_nothing_depends_on_order_or_neighbours(texts: list[str], rng: random.Random) -> None:
    rows = [evaluation(text, number) for number, text in enumerate(texts)]
    rule = OverlapRule(words=3)
    pool = [
        [first, second] for first, second in pairwise(["a b c d a", "d c b", *texts, "a b a b"])
    ]
    alone = [EvaluationTexts(rows, rule).find_overlaps([turns])[0] for turns in pool]
    order = rng.sample(range(len(pool)), len(pool))
    rng.shuffle(rows)
    together = EvaluationTexts(rows, rule).find_overlaps([pool[place] for place in order])
    assert together == [alone[place] for place in order]
