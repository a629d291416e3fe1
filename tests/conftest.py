"""What all tests share: surroundings that are never the developer's own, one Prefect server a
session, and two pools.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.small_pool import write_small_pool

ROOT = Path(__file__).parents[1]

# The same examples in every run: a fault that chance finds must not stop a change that is not its
# cause. `pytest --hypothesis-profile=default` looks for new ones.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")


def pytest_configure(config: pytest.Config) -> None:
    """Before anything imports Prefect, which reads these once: its home is ours and empty, it says
    little and calls nobody.
    """
    home = tempfile.mkdtemp(prefix="deita-tests-")
    config.add_cleanup(lambda: shutil.rmtree(home, ignore_errors=True))
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        del os.environ[name]
    os.environ |= {
        "PREFECT_HOME": home,
        "PREFECT_LOGGING_LEVEL": "ERROR",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
        "DO_NOT_TRACK": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """A Prefect server with an empty database, started (about 17 s) when the first flow test asks
    for it.
    """
    from prefect.settings import (
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        PREFECT_LOGGING_TO_API_ENABLED,
        temporary_settings,
    )
    from prefect.testing.utilities import prefect_test_harness

    # Each flow run would end with a second of waiting for its heartbeat, and send every line of its
    # log.
    quick = {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None, PREFECT_LOGGING_TO_API_ENABLED: False}
    with prefect_test_harness(server_startup_timeout=180), temporary_settings(quick):
        yield


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model hub: what a test loads lies on this machine or the test fails."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def small_pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 30 conversations of `support/small_pool.py` as JSON Lines."""
    return write_small_pool(tmp_path_factory.mktemp("small") / "pool.jsonl")


@pytest.fixture(scope="session")
def sample_pool() -> Path:
    """The sample pool that comes with the project: 400 conversations."""
    return ROOT / "examples" / "pool.jsonl"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The data that lies beside the checkout; a test that asks for it is skipped where there is
    none.
    """
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"needs the data in {folder}, which is not there")
    return folder
