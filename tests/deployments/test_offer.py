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
from deployments.offer import NIGHTLY, build_parser, environment, read_deployments


class Server:
    """A client of a server that has reselect with these schedules, or has no deployment yet."""

    def __init__(self, *schedules: tuple[Any, bool]) -> None:
        self.automations: list[bool] = []
        self.held = [
            SimpleNamespace(schedule=schedule, active=active) for schedule, active in schedules
        ]

    def read_deployment_by_name(self, name: str) -> Any:
        assert name == "reselect-subset/reselect"
        if not self.held:
            raise ObjectNotFound(Exception())
        return SimpleNamespace(schedules=self.held)

    def read_automations_by_name(self, name: str) -> list[Any]:
        assert name == read_deployments()[-1]["triggers"][0]["name"]
        return [SimpleNamespace(enabled=enabled) for enabled in self.automations]


def filled(server: Server, *arguments: str) -> dict[str, str]:
    return environment(build_parser(None).parse_args(arguments), server)  # type: ignore[arg-type]


def test_paths_begin_at_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert filled(Server()) == {
        "DEITA_ROOT": str(tmp_path),
        "DEITA_INPUT": str(tmp_path / "pools"),
        "DEITA_CRON": NIGHTLY,
        "DEITA_TIMEZONE": "UTC",
        "DEITA_ACTIVE": "false",
        "DEITA_ALIGN": "false",
    }
    (tmp_path / "site").mkdir()
    given = filled(Server(), "--root", "site", "--input", "pool.jsonl")
    assert given["DEITA_ROOT"] == str(tmp_path / "site")
    assert given["DEITA_INPUT"] == str(tmp_path / "pool.jsonl"), (
        "what a person names is where that person is"
    )
    assert filled(Server(), "--input", "s3://team/pools")["DEITA_INPUT"] == "s3://team/pools"


@pytest.mark.parametrize(
    ("arguments", "cron", "active"),
    [
        ((), "0 4 * * 1", "true"),
        (("--no-active",), "0 4 * * 1", "false"),
        (("--cron", "5 5 * * *"), "5 5 * * *", "true"),
    ],
)
def test_a_schedule_stays_as_it_is_unless_it_is_asked_for(
    arguments: tuple[str, ...], cron: str, active: str
) -> None:
    given = filled(
        Server((CronSchedule(cron="0 4 * * 1", timezone="Europe/Berlin"), True)), *arguments
    )
    assert (given["DEITA_CRON"], given["DEITA_ACTIVE"]) == (cron, active)
    assert given["DEITA_TIMEZONE"] == (
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
    assert filled(Server(*schedules), "--cron", NIGHTLY)["DEITA_CRON"] == NIGHTLY


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


def test_what_is_served_is_what_is_deployed(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {
        "DEITA_ROOT": "/srv",
        "DEITA_INPUT": "/srv/pools",
        "DEITA_CRON": NIGHTLY,
        "DEITA_ACTIVE": "true",
        "DEITA_ALIGN": "true",
    }
    variables["DEITA_TIMEZONE"] = "Europe/Berlin"
    for name in variables:
        monkeypatch.setenv(name, "")
    served = {one.name: one for one in serve.build_deployments(variables)}
    assert list(served) == [one["name"] for one in read_deployments()]
    for one in read_deployments():
        made = served[one["name"]]
        assert made.entrypoint == one["entrypoint"], (
            "a module, so that it is found from wherever it is served"
        )
        pool = "/srv/results/reselect" if one["name"] == "align" else "/srv/pools"
        assert made.parameters["source"] == {"input": [pool]}
        assert made.description
        assert made.tags == one["tags"]
        assert "work_pool_name" in made.model_fields_set
        assert made.work_pool_name is None
    reselect = served["reselect"]
    assert reselect.schedules is not None
    assert [(one.schedule.cron, one.active) for one in reselect.schedules] == [(NIGHTLY, True)]  # type: ignore[union-attr]
    assert reselect.concurrency_limit == 1
    assert reselect.concurrency_options is not None
    assert reselect.concurrency_options.collision_strategy == "CANCEL_NEW"
    assert not served["select"].schedules
    (trigger,) = served["align"].triggers
    assert trigger.enabled
    assert trigger.expect == {"deita.selection.created"}
    assert trigger.parameters["source"] == {"input": ["{{ event.payload.uri }}"]}, (
        "Prefect fills it in when the event comes"
    )


@pytest.mark.parametrize(
    ("automations", "arguments", "expected"),
    [
        ([], (), "false"),
        ([True], (), "true"),
        ([True], ("--no-align",), "false"),
        ([], ("--align",), "true"),
    ],
)
def test_the_automation_stays_as_it_is_unless_it_is_asked_for(
    automations: list[bool], arguments: tuple[str, ...], expected: str
) -> None:
    server = Server()
    server.automations = automations
    assert filled(server, *arguments)["DEITA_ALIGN"] == expected


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


def test_the_file_comes_with_the_package() -> None:
    assert offer.YAML.is_file()
