"""What fills in prefect.yaml, and that serving offers what deploying does."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
from prefect.exceptions import ObjectNotFound

from deployments import deploy, offer, serve, ui
from deployments.offer import NIGHTLY, build_parser, fill_in
from tests.conftest import ROOT


class Server:
    """A client of a server that has reselect with these schedules, or has no deployment yet."""

    def __init__(self, *schedules: tuple[Any, bool]) -> None:
        self.schedules = [
            SimpleNamespace(schedule=schedule, active=active) for schedule, active in schedules
        ]

    def read_deployment_by_name(self, name: str) -> Any:
        assert name == "reselect-subset/reselect"
        if not self.schedules:
            raise ObjectNotFound(Exception())
        return SimpleNamespace(schedules=self.schedules)


def filled(server: Server, *arguments: str) -> dict[str, dict[str, Any]]:
    """The deployments by name, as these arguments fill them in."""
    options = build_parser(None).parse_args(arguments)
    return {each["name"]: each for each in fill_in(options, server)}  # type: ignore[arg-type]


def schedule_of(server: Server, *arguments: str) -> dict[str, Any]:
    [schedule] = filled(server, *arguments)["reselect"]["schedules"]
    assert isinstance(schedule, dict)
    return schedule


def test_paths_begin_at_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    select = filled(Server())["select"]["parameters"]
    assert select == {
        "source": {"input": [str(tmp_path / "pools")]},
        "export": {"output": str(tmp_path / "results" / "select" / "{run}")},
        "advanced": {"store": str(tmp_path / ".deita")},
    }
    assert schedule_of(Server()) == {"cron": NIGHTLY, "timezone": "UTC", "active": False}
    (tmp_path / "site").mkdir()
    given = filled(Server(), "--root", "site", "--input", "pool.jsonl")
    for name in ("select", "reselect", "sweep"):
        assert given[name]["parameters"]["source"] == {"input": [str(tmp_path / "pool.jsonl")]}, (
            "what a person names is where that person is"
        )
    align = given["align"]["parameters"]
    assert align["source"] == {"input": [str(tmp_path / "site" / "results" / "reselect")]}
    assert align["training"] == {"base": str(tmp_path / "site" / "base-model")}
    in_s3 = filled(Server(), "--storage", "s3://team/deita")
    assert in_s3["reselect"]["parameters"] == {
        "source": {"input": ["s3://team/deita/pools"]},
        "export": {"output": "s3://team/deita/results/reselect"},
        "advanced": {"store": "s3://team/deita/.deita"},
    }
    assert in_s3["align"]["parameters"]["training"] == {"base": str(tmp_path / "base-model")}
    uri = filled(Server(), "--input", "s3://team/pools")["select"]["parameters"]["source"]
    assert uri == {"input": ["s3://team/pools"]}


def test_a_budget_is_what_the_forms_start_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = filled(Server(), "--root", str(tmp_path), "--budget", "150")
    assert given["select"]["parameters"]["selection"] == {"budget": 150}
    assert given["reselect"]["parameters"]["selection"] == {"budget": 150}
    assert given["sweep"]["parameters"]["grid"] == {"budgets": [25, 75, 150]}
    assert "selection" not in given["align"]["parameters"]
    least = filled(Server(), "--root", str(tmp_path), "--budget", "1")
    assert least["sweep"]["parameters"]["grid"] == {"budgets": [1]}
    with pytest.raises(SystemExit):
        filled(Server(), "--root", str(tmp_path), "--budget", "0")
    assert "--budget 0: expected at least 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "cron", "active"),
    [
        ((), "0 4 * * 1", True),
        (("--no-active",), "0 4 * * 1", False),
        (("--cron", "5 5 * * *"), "5 5 * * *", True),
    ],
)
def test_a_schedule_stays_as_it_is_unless_it_is_asked_for(
    arguments: tuple[str, ...], cron: str, active: bool
) -> None:
    weekly = CronSchedule(cron="0 4 * * 1", timezone="Europe/Berlin")
    given = schedule_of(Server((weekly, True)), *arguments)
    assert (given["cron"], given["active"]) == (cron, active)
    assert given["timezone"] == (
        "UTC" if "--cron" in arguments else "Europe/Berlin"
    )  # an hour that is given is in UTC


@pytest.mark.parametrize(
    "schedules",
    [
        [(IntervalSchedule(interval=timedelta(hours=1)), True)],
        [(CronSchedule(cron="0 4 * * 1"), True), (CronSchedule(cron="0 5 * * 1"), True)],
    ],
)
def test_schedules_that_would_be_lost_are_told(
    schedules: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        filled(Server(*schedules))
    assert ended.value.code == 2
    assert "would lose them" in capsys.readouterr().err
    assert schedule_of(Server(*schedules), "--cron", NIGHTLY)["cron"] == NIGHTLY


def test_a_root_that_is_not_there_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        filled(Server(), "--root", str(tmp_path / "nowhere"))
    assert "no such folder" in capsys.readouterr().err


@pytest.mark.parametrize("main", [deploy.main, serve.main])
@pytest.mark.parametrize(
    ("url", "told"),
    [(None, "PREFECT_API_URL is not set"), ("http://127.0.0.1:9/api", "no Prefect server answers")],
)
def test_without_a_server_one_line_says_so(
    main: Any, url: str | None, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with (
        temporary_settings(
            {PREFECT_API_URL: url}, restore_defaults=() if url else {PREFECT_API_URL}
        ),
        pytest.raises(SystemExit) as ended,
    ):
        main([])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert told in said
    assert len(said.splitlines()) == 1


def test_what_is_served_is_what_is_deployed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weekly = CronSchedule(cron="0 4 * * 1", timezone="Europe/Berlin")
    deployments = filled(Server((weekly, True)), "--root", str(tmp_path))
    served = {name: serve.build_deployment(each) for name, each in deployments.items()}
    for name, each in deployments.items():
        made = served[name]
        assert made.entrypoint == each["entrypoint"], (
            "a module, so that it is found from wherever it is served"
        )
        assert made.parameters == each["parameters"]
        assert made.description
        assert made.tags == each["tags"]
        assert "work_pool_name" in made.model_fields_set
        assert made.work_pool_name is None
    reselect = served["reselect"]
    assert reselect.schedules is not None
    assert [(each.schedule, each.active) for each in reselect.schedules] == [(weekly, True)]
    assert reselect.concurrency_limit == 1
    assert reselect.concurrency_options is not None
    assert reselect.concurrency_options.collision_strategy == "CANCEL_NEW"
    assert not served["select"].schedules


def test_a_server_of_our_own_has_nothing_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_KEY", "pnu_secret")
    monkeypatch.setenv("PREFECT_PROFILE", "cloud")
    found = ui.server_environment(tmp_path, 4321)
    assert {name for name in found if name.startswith("PREFECT_")} == {
        "PREFECT_HOME",
        "PREFECT_SERVER_API_HOST",
        "PREFECT_SERVER_API_PORT",
        "PREFECT_API_URL",
        "PREFECT_SERVER_ANALYTICS_ENABLED",
    }
    assert found["PREFECT_SERVER_API_HOST"] == "127.0.0.1", "to be reached from this machine alone"


def test_prefect_finds_the_file_at_the_root() -> None:
    assert (ROOT / "prefect.yaml").resolve() == offer.YAML.resolve()
