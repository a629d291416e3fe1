"""Words of texts with and without spaces between them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deita_tasks.words import count_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", 0),
        (" \n\t ", 0),
        ("... -- ## ___ | 👍", 0),
        ("Sort a list.", 3),
        ("don't re-read  (twice)\nplease", 4),
        ("x=1;y=2", 1),
        ("“Ça va ?” — oui", 3),
        ("日本語です", 5),
        ("我爱Python编程 3次", 7),  # 我 爱 Python 编 程 3 次
        ("안녕하세요 여러분", 2),
        ("हिन्दी में लिखो", 3),
        ("cafe\u0301 noir", 2),
        ("مرحبا بالعالم", 2),
    ],
)
def test_words(text: str, words: int) -> None:
    assert count_words(text) == words


# The first article of the Universal Declaration of Human Rights, its words by ICU 78.2. Burmese:
# its first sentence. (Over the whole declaration the estimates are 1 to 10% off.)
@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์"
            "และสิทธิ ต่างมีเหตุผลและมโนธรรม และควรปฏิบัติต่อกันด"
            "้วยเจตนารมณ์แห่งภราดรภาพ",
            29,
        ),
        (
            "ມະນຸດເກີດມາມີສິດເສລີພາບ ແລະ ສະເໝີໜ້າກັນໃນທາງກຽດຕິສັກ ແລະ ທາງ"
            "ສິດດ້ວຍມະນຸດມີສະຕິສຳປັດຊັນຍະ(ຮູ້ດີຮູ້ຊົ່ວ)ແລະມີມະໂນທຳຈື່ງຕ້ອ"
            "ງປະພຶດຕົນຕໍ່ກັນໃນທາງພີ່ນ້ອງ.",
            42,
        ),
        (
            "មនុស្សទាំងអស់ កើតមកមានសេរីភាព និងសមភាព ក្នុងផ្នែកសេចក្ដីថ្លៃ"
            "ថ្នូរនិងសិទ្ធិ។ មនុស្ស មានវិចារណញ្ញាណនិងសតិសម្បជញ្ញៈជាប់ពីកំ"
            "ណើត ហើយគប្បីប្រព្រឹត្ដចំពោះគ្នាទៅវិញទៅមកក្នុងស្មារតីភាតរភាពជ"
            "ាបងប្អូន។",
            30,
        ),
        (
            "လူတိုင်းသည် တူညီ လွတ်လပ်သော ဂုဏ်သိက္ခာဖြင့် လည်းကောင်း၊ တူညီ"
            "လွတ်လပ်သော အခွင့်အရေးများဖြင့် လည်းကောင်း၊ မွေးဖွားလာသူများ "
            "ဖြစ်သည်။",
            21,
        ),
    ],
    ids=["Thai", "Lao", "Khmer", "Burmese"],
)
def test_words_of_scripts_without_spaces_are_estimated(text: str, words: int) -> None:
    assert count_words(text) == pytest.approx(words, rel=0.25)


@pytest.mark.parametrize(
    ("text", "words"),
    [("ไป", 1), ("ไป ไป ไป", 3), ("ใช้Pythonเขียน", 3), ("๓", 1), ("ฯลฯ ๏ ฿", 1), ("ເດັກ", 1)],
)
def test_a_run_of_such_a_script_has_at_least_one_word(text: str, words: int) -> None:
    assert count_words(text) == words


@given(st.text(), st.text())
def test_words_add_up_across_a_line_break(a: str, b: str) -> None:
    assert count_words(a + "\n" + b) == count_words(a) + count_words(b)
