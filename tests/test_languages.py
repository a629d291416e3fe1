"""The language of a text, against texts whose language is known."""

import pytest

from deita_tasks.languages import MAX_CHARACTERS, UNDETERMINED, detect_language, language_name

TEXTS = {
    "en": "How do I keep basil alive indoors during the winter?",
    "de": "Wie halte ich Basilikum im Winter in der Wohnung am Leben?",
    "fr": "Comment garder le basilic en vie à l'intérieur pendant l'hiver ?",
    "es": "¿Cómo mantengo viva la albahaca dentro de casa durante el invierno?",
    "zh": "冬天怎样让罗勒在室内存活?请告诉我浇水的方法。",
    "ja": "冬の間、室内でバジルを枯らさないためにはどうすればよいですか。",
    "ko": "겨울에 실내에서 바질을 죽이지 않고 키우려면 어떻게 해야 하나요?",
    "hi": "सर्दियों में तुलसी को घर के अंदर कैसे जीवित रखें?",
    "he": "איך שומרים על בזיליקום חי בתוך הבית במהלך החורף?",
    "th": "ฉันจะดูแลโหระพาในบ้านช่วงฤดูหนาวได้อย่างไร",
}


@pytest.mark.parametrize("code", TEXTS)
def test_each_language_is_found(code: str) -> None:
    assert detect_language([TEXTS[code]]) == code


@pytest.mark.parametrize("text", ["", "12 + 30 = 42", "\x00\x01\ufffe", "😀😀😀"])
def test_what_is_no_language_is_undetermined(text: str) -> None:
    assert detect_language([text]) == UNDETERMINED


def test_characters_that_cld2_refuses_do_not_hide_the_language() -> None:
    assert detect_language([f"\x02\ufdd0{TEXTS['ja']}\x1b"]) == "ja"


def test_only_the_beginning_counts() -> None:
    german = [TEXTS["de"]] * (MAX_CHARACTERS // len(TEXTS["de"]) + 1)
    assert detect_language([*german, TEXTS["ko"] * 100]) == "de"


def test_no_text_hides_the_others() -> None:
    assert detect_language(["1 2 3 " * 1000, TEXTS["fr"], TEXTS["fr"]]) == "fr"


def test_names_are_those_of_english() -> None:
    codes = ["en", "zh", "hi", "he", UNDETERMINED, "qqq"]
    names = ["English", "Chinese", "Hindi", "Hebrew", "not determined", "qqq"]
    assert [language_name(code) for code in codes] == names
