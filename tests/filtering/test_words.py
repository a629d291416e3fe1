"""What a word is."""

from __future__ import annotations

import pytest

from deita_tasks.filtering.words import split_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("What's 2+2?", ["what", "s", "2", "2"]),
        ("  A\tlong\n\nline -- with_underscores ", ["a", "long", "line", "with", "underscores"]),
        ("ﬁve ① Ｔｅｓｔ", ["five", "1", "test"]),  # NFKC: ligature, circled digit, full width
        ("STRASSE straße", ["strasse", "strasse"]),  # case folding
        ("cafe\u0301 café", ["café", "café"]),  # a combining accent
        ("人工智能 is AI。", ["人", "工", "智", "能", "is", "ai"]),
        ("東京タワー", ["東", "京", "タ", "ワ", "ー"]),
        ("한국어 문장", ["한국어", "문장"]),  # Korean has spaces
        ("हिन्दी में।", ["हिन्दी", "में"]),  # a word keeps its vowel signs
        ("... !?", []),
    ],
)
def test_words_have_no_case_and_no_punctuation(text: str, words: list[str]) -> None:
    assert split_words(text) == words
