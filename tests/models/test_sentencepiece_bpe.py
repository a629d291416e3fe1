import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from deita_tasks.errors import ModelError
from deita_tasks.models.sentencepiece_bpe import load_sentencepiece_bpe
from tests.support.checkpoints import write_sentencepiece


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_sentencepiece(tmp_path_factory.mktemp("sentencepiece"))


@pytest.fixture(scope="module")
def ours(path):
    return load_sentencepiece_bpe(path, {})


@pytest.fixture(scope="module")
def theirs(path):
    return sentencepiece.SentencePieceProcessor(model_file=str(path))


FRAGMENTS = [
    "a",
    "the",
    " ",
    "  ",
    "    ",
    "\t",
    "\n",
    "==",
    "re",
    "er",
    "1",
    "23",
    "é",
    "e\u0301",
    "漢",
    "日本",
    "👍🏽",
    "▁",
    "<0x0A>",
    "</",
    ">",
]


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(), st.lists(st.sampled_from(FRAGMENTS), max_size=40).map("".join)))
def test_same_ids_as_sentencepiece(ours, theirs, text):
    for literal in ("<s>", "</s>", "<unk>"):
        text = text.replace(literal, "")
    assert ours.encode(text).ids == [1, *theirs.encode(text)]


@pytest.mark.parametrize("spaces", range(1, 40))
def test_runs_of_spaces(ours, theirs, spaces):
    text = f"x{' ' * spaces}y\n{' ' * spaces}return z"
    assert ours.encode(text).ids == [1, *theirs.encode(text)]


def test_special_tokens_written_in_a_text_are_special_and_the_text_after_them_starts_anew(
    ours, theirs
):
    assert ours.encode("Hello.</s>USER: <s>x").ids == [
        1,
        *theirs.encode("Hello."),
        2,
        *theirs.encode("USER: "),
        1,
        *theirs.encode("x"),
    ]
    # The newer behaviour of the slow tokenizer ("legacy": false) puts no space in front of what
    # follows.
    assert ours.encode("a</s>b").tokens[-1] == "▁b"


def test_newer_behaviour(path, theirs):
    newer = load_sentencepiece_bpe(path, {"legacy": False})
    for text in ("sort  it", "  leading", "", " ", "\n", "1"):
        assert newer.encode(text).ids == [1, *theirs.encode(text)]
    assert newer.encode("a</s>b").tokens[-2:] == ["</s>", "b"]
    assert newer.encode("</s>b").tokens[-2:] == ["</s>", "b"]
    assert newer.encode("a</s> b").tokens[-2:] == ["</s>", "▁b"]


def test_ends_as_tokenizer_config_says(path, theirs):
    both = load_sentencepiece_bpe(path, {"add_bos_token": True, "add_eos_token": True})
    none = load_sentencepiece_bpe(path, {"add_bos_token": False})
    assert both.encode("x").ids == [1, *theirs.encode("x"), 2]
    assert none.encode("x").ids == theirs.encode("x")


def test_added_tokens(path):
    size = sentencepiece.SentencePieceProcessor(model_file=str(path)).get_piece_size()
    config = {
        "added_tokens_decoder": {
            str(size): {"content": "[PAD]", "special": True},
            "0": {"content": "<unk>", "special": True},
        }
    }
    assert load_sentencepiece_bpe(path, config).encode("a[PAD]").ids[-1] == size
    config["added_tokens_decoder"][str(size + 5)] = {"content": "[GAP]"}
    with pytest.raises(ModelError, match="gap"):
        load_sentencepiece_bpe(path, config)


@pytest.mark.parametrize(
    "options",
    [
        {"model_type": "unigram", "vocab_size": 400},
        {"normalization_rule_name": "nmt_nfkc"},
        {"remove_extra_whitespaces": True},
        {"add_dummy_prefix": False},
    ],
)
def test_other_kinds_of_sentencepiece_are_refused(tmp_path, options):
    with pytest.raises(ModelError, match=r"not of the LLaMA kind.*tokenizer\.json"):
        load_sentencepiece_bpe(write_sentencepiece(tmp_path, **options), {})


def test_not_sentencepiece_at_all(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"aGVsbG8= 0\n")
    with pytest.raises(ModelError, match="not a sentencepiece model"):
        load_sentencepiece_bpe(tmp_path / "tokenizer.model", {})
