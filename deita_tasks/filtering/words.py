"""Texts as the words that decontamination compares."""

from __future__ import annotations

import re
import unicodedata

# Written without spaces, so each character is a word: Thai, Lao, Myanmar, Khmer, kana, Chinese.
_SINGLE = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U00020000-\U000323af"
)
# Marks inside words, which `\w` leaves out: accents, Hebrew and Arabic points, Indic vowels.
_MARKS = "\u0300-\u036f\u0591-\u05bd\u0610-\u061a\u064b-\u065f\u0900-\u0963\u0971-\u0dff"
_WORD = re.compile(rf"[{_SINGLE}]|(?:[^\W_{_SINGLE}]|[{_MARKS}])+")


def split_words(text: str) -> list[str]:
    """Return the words of a text: NFKC, without case, punctuation and white space.

    A word is a run of letters, digits and their marks. In scripts without spaces (Chinese,
    Japanese, Thai, Lao, Khmer, Myanmar) it is one character.
    """
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
