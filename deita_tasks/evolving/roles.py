"""The two chat models of a run, as its parameters name them."""

from __future__ import annotations

from typing import NamedTuple

from deita_tasks.config import Judging, Requests, Rewriting
from deita_tasks.errors import UsageError
from deita_tasks.evolving.limits import RateLimit, Spending
from deita_tasks.evolving.replies import ChatModel, ChatOptions, key_reader
from deita_tasks.presets import SERVER_KEY_ENV
from deita_tasks.scoring.http_client import check_url


class Roles(NamedTuple):
    """How the model that rewrites is asked, and how the judge is."""

    rewriter: ChatOptions
    judge: ChatOptions


class ChatModels(NamedTuple):
    """Both models. They share what the run may pay for, and the limits of a common server."""

    rewriter: ChatModel
    judge: ChatModel


def roles_of(rewriting: Rewriting, judging: Judging, requests: Requests) -> Roles:
    """Return how both models are asked.

    Raises UsageError for an address that is none, or a key that is not there.
    """
    _check("rewrite_url", rewriting.rewrite_url)
    judge_url = judging.judge_url or rewriting.rewrite_url
    _check("judge_url", judge_url)
    rewriter = ChatOptions(
        url=rewriting.rewrite_url,
        model=rewriting.rewrite_model,
        api_key_env=rewriting.rewrite_key_env,
        api_key_block=rewriting.rewrite_key_block,
        temperature=rewriting.rewrite_temperature,
        max_tokens=rewriting.rewrite_tokens,
        concurrency=requests.concurrency,
        timeout=requests.request_timeout,
        attempts=requests.request_attempts,
    )
    own = {
        "url": judge_url,
        "model": judging.judge_model or rewriting.rewrite_model,
        "temperature": judging.judge_temperature,
        "max_tokens": judging.judge_tokens,
        **_judge_key(rewriting, judging),
    }
    roles = Roles(rewriter, rewriter.model_copy(update=own))
    for options in roles:
        key_reader(options)
    return roles


def _judge_key(rewriting: Rewriting, judging: Judging) -> dict[str, str | None]:
    """Return where the judge's key is, {} for that of the rewrites: no other server is shown it."""
    is_named = judging.judge_key_env or judging.judge_key_block
    is_moved = judging.judge_url not in (None, rewriting.rewrite_url)
    if not (is_named or is_moved):
        return {}
    variable = judging.judge_key_env or SERVER_KEY_ENV
    return {"api_key_env": variable, "api_key_block": judging.judge_key_block}


def _check(option: str, url: str) -> None:
    """Raise UsageError that names the option if `url` is not that of a server."""
    try:
        check_url(url)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from None


def open_models(roles: Roles, requests: Requests, store: str) -> ChatModels:
    """Return both models; nothing is asked for yet."""
    spending = Spending(requests.token_cap)
    limits: dict[str, RateLimit] = {}
    for options in roles:
        limit = RateLimit(requests.requests_per_minute, requests.tokens_per_minute)
        limits.setdefault(check_url(options.url), limit)
    rewriter, judge = (
        ChatModel(options, store, spending, limits[check_url(options.url)]) for options in roles
    )
    return ChatModels(rewriter, judge)
