"""Which tokens are under loss, what the window cuts, and what is left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from deita_tasks.conversations import Conversation, Turn
from deita_tasks.embedding.vicuna import render_vicuna
from deita_tasks.errors import InputError, ModelError
from deita_tasks.finetuning.examples import build_training_set, data_digest
from deita_tasks.models.chat import IGNORED, chat_turns, encode
from deita_tasks.models.chat_tokenizer import BaseName, Tokenization, load_tokenizer
from tests.support.tiny_base import END, conversation, conversations, encoded, write_base

TWO_EXCHANGES = Conversation(
    (
        Turn("system", "Be brief."),
        Turn("user", "Sum of 1 and 2?"),
        Turn("assistant", "3"),
        Turn("user", "And of 3 and 4?"),
        Turn("assistant", "It is 7."),
    )
)


def spoken(tokenization: Tokenization, labels: list[int]) -> str:
    """The text of the tokens under loss."""
    text: str = tokenization.tokenizer.decode([label for label in labels if label != IGNORED])
    return text


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("vicuna", f" 3{END} It is 7.{END}"),
        ("chatml", f"3<|im_end|>{END}It is 7.<|im_end|>{END}"),
    ],
)
def test_loss_is_on_the_assistants_words_and_their_ends(
    base: BaseName, template: str, expected: str
) -> None:
    tokenization = load_tokenizer(base.model_copy(update={"chat_template": template}))
    encoded = encode(tokenization.tokenizer, chat_turns(TWO_EXCHANGES))
    assert spoken(tokenization, encoded.labels) == expected
    under_loss = [
        (token, label)
        for token, label in zip(encoded.input_ids, encoded.labels, strict=True)
        if label != IGNORED
    ]
    assert all(token == label for token, label in under_loss)
    alone = tokenization.tokenizer(expected, add_special_tokens=False)["input_ids"]
    assert encoded.trained == len(under_loss) == len(alone)


@pytest.mark.parametrize("row", [TWO_EXCHANGES, conversation("Why?", "So."), conversations(3)[2]])
def test_vicuna_is_the_template_of_the_paper(tokenization: Tokenization, row: Conversation) -> None:
    encoded = encode(tokenization.tokenizer, chat_turns(row))
    text = tokenization.tokenizer.decode(encoded.input_ids)
    assert text == render_vicuna(row).replace("</s>", END)


def test_what_the_window_cuts_is_counted(tokenization: Tokenization) -> None:
    short = conversation("A?", "B.")
    long_answer = conversation("A?", "0 1 2 3 4 5 6 7 8 9 " * 20, row=2)
    long_question = conversation("0 1 2 3 4 5 6 7 8 9 " * 20, "B.", row=3)
    whole = {
        row.id: encode(tokenization.tokenizer, chat_turns(row))
        for row in (short, long_answer, long_question)
    }
    window = len(whole[short.id].input_ids) + 5
    data = build_training_set(encoded([long_question, short, long_answer], tokenization), window)
    assert [example.id for example in data.examples] == sorted([short.id, long_answer.id])
    assert [(row.source.row, row.reason) for row in data.left_out] == [
        (3, f"its answers begin beyond the window of {window} tokens")
    ]
    survey = data.survey
    cut = whole[long_answer.id]
    assert survey.rows == 2
    assert survey.tokens == len(whole[short.id].input_ids) + window
    assert survey.cut_rows == 1
    assert survey.cut_tokens == len(cut.input_ids) - window
    assert survey.cut_trained_tokens == cut.trained - cut.cut(window).trained > 0
    assert survey.trained_tokens == whole[short.id].trained + cut.cut(window).trained
    lengths = sorted(len(row.input_ids) for row in whole.values())
    by_share = {quantile.share: quantile.tokens for quantile in survey.lengths}
    assert [by_share[share] for share in (0.05, 0.5, 1.0)] == lengths
    assert any("left out" in line for line in survey.sentences())


def test_no_row_at_all_is_an_error(tokenization: Tokenization) -> None:
    with pytest.raises(InputError, match=r"no row can be trained on: .*beyond the window of 8"):
        build_training_set(encoded(conversations(3), tokenization), 8)


def test_data_do_not_depend_on_the_order_of_rows(tokenization: Tokenization) -> None:
    rows = conversations(9)
    digests = {
        data_digest(build_training_set(encoded(order, tokenization), 512).examples)
        for order in (rows, rows[::-1], rows[4:] + rows[:4])
    }
    assert len(digests) == 1
    fewer = build_training_set(encoded(rows[:-1], tokenization), 512).examples
    assert data_digest(fewer) not in digests


def test_what_a_template_cannot_show_is_left_out_and_named(tokenization: Tokenization) -> None:
    call = {"tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {}}}]}
    calling = Conversation((Turn("user", "1 + 2?"), Turn("assistant", "", call)))
    data = build_training_set(encoded([calling, *conversations(2)], tokenization), 512)
    assert len(data.examples) == 2
    (row,) = data.left_out
    assert row.id == calling.id
    assert "the template vicuna has no tool calls" in row.reason


# ---- base models that lack something


def test_a_template_without_a_mark_names_the_remedy(tmp_path: Path, offline: None) -> None:
    folder = write_base(tmp_path)
    unmarked = "{% for turn in messages %}{{ turn.content }}{% endfor %}"
    (folder / "chat_template.jinja").write_text(unmarked)
    with pytest.raises(ModelError, match=r"does not mark .*--chat-template vicuna or chatml"):
        load_tokenizer(BaseName(model=str(folder)))
    remedied = load_tokenizer(BaseName(model=str(folder), chat_template="chatml"))
    assert remedied.template == "chatml"


def test_trls_version_of_a_common_template_stands_in(tmp_path: Path, offline: None) -> None:
    from trl import chat_template_utils

    folder = write_base(tmp_path)
    common = chat_template_utils.qwen2_5_chat_template
    (folder / "chat_template.jinja").write_text(common)
    tokenization = load_tokenizer(BaseName(model=str(folder)))
    assert tokenization.template == "own"
    encoded = encode(tokenization.tokenizer, chat_turns(conversation("Why?", "So.")))
    assert spoken(tokenization, encoded.labels).strip() == "So.<|im_end|>"


def test_a_base_without_a_template_takes_the_default_unless_its_own_is_wanted(
    base: BaseName,
) -> None:
    assert load_tokenizer(base).template == "vicuna"
    with pytest.raises(ModelError, match=r"has no chat template; choose one"):
        load_tokenizer(base.model_copy(update={"chat_template": "own"}))


def test_a_token_pads_where_the_base_has_none(base: BaseName, tmp_path: Path) -> None:
    tokenization = load_tokenizer(base)
    assert tokenization.tokenizer.pad_token == END
    assert tokenization.remedies == [f"the base model has no padding token: {END} pads"]
    with_padding = write_base(tmp_path, pad_token="<|begin_of_text|>")
    assert load_tokenizer(BaseName(model=str(with_padding))).remedies == []


def test_a_base_without_an_end_token_is_an_error(tmp_path: Path, offline: None) -> None:
    folder = write_base(tmp_path, eos_token=None)
    with pytest.raises(ModelError, match="no token that ends a text; set eos_token"):
        load_tokenizer(BaseName(model=str(folder)))
