"""What a host disables after an error is in the lineage, ``evo status`` and the report; results stay the same."""

import pytest
from toy_engines import PASSES
from toy_runs import rows, run
from toys import toy_config

import evo.lineage
from evo.errors import EvoError
from evo.report.facts import facts
from evo.report.status import read_status


def engine(**settings):
    return {"kind": "toy_engines:GROUPING", "build": "toys:build", **settings}


def scores(run_dir):
    return [(row["individual"], row["score"]) for row in rows(run_dir)]


def test_a_model_batch_that_fails_is_an_event_of_the_run(tmp_path):
    config = toy_config(tmp_path / "m", engine=engine(options={"fails": "kernel"}))
    run(config, tmp_path / "degraded")
    (event,) = [r for r in rows(tmp_path / "degraded", "events") if r["kind"] == "degraded"]
    assert "no batched kernel for this device" in event["detail"]
    status = read_status(tmp_path / "degraded")
    assert status.events["degraded"] == 1
    assert event["detail"] in status.describe()
    shown = facts(evo.lineage.open(tmp_path / "degraded"))["events"]
    assert event["detail"] in {row["detail"] for row in shown["rows"]}
    run(toy_config(tmp_path / "m"), tmp_path / "plain")
    assert scores(tmp_path / "degraded") == scores(tmp_path / "plain")


def test_group_off_runs_individuals_one_at_a_time(tmp_path):
    PASSES.clear()
    config = toy_config(tmp_path / "m", engine=engine(group="off"))
    run(config, tmp_path / "off")
    assert PASSES == []
    assert "degraded" not in {r["kind"] for r in rows(tmp_path / "off", "events")}
    run(toy_config(tmp_path / "m", engine=engine()), tmp_path / "auto")
    assert max(PASSES) > 1
    assert scores(tmp_path / "off") == scores(tmp_path / "auto")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"options": {"sice": 3}},
            "engine.options: kind: grouping has no 'sice'; it has fails, size",
        ),
        ({"compile": True}, "engine.compile has no effect with kind: grouping"),
        (
            {"kind": "toy_engines:make"},
            "engine.kind: 'toy_engines:make' is a function, not an EngineKind",
        ),
        (
            {"kind": "toy_engines:GROPING"},
            "engine.kind: 'toy_engines:GROPING': .*Did you mean GROUPING",
        ),
    ],
)
def test_an_engine_of_ones_own_is_checked_before_the_run(settings, said, tmp_path):
    config = toy_config(
        tmp_path / "m", engine=engine(**{"kind": "toy_engines:GROUPING", **settings}) | settings
    )
    with pytest.raises(EvoError, match=said):
        run(config, tmp_path / "run")
