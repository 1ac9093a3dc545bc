"""`choose`: the window and the law of friction that generated a log are found, without its held-out runs."""

import json

import mujoco
import numpy as np
import pytest

from dso_robotics.cli import main
from dso_robotics.data.log import Log, write_log
from dso_robotics.data.rollout import Rollout
from dso_robotics.errors import DsoError
from dso_robotics.parameters.path import parse
from dso_robotics.report.table import identification_table
from dso_robotics.studies import identify as module
from dso_robotics.studies.friction_law import LAWS, moved_joints, with_law
from dso_robotics.studies.identify import identify
from dso_robotics.studies.study import IdentifyStudy
from tests.pendulum import NOISE, PENDULUM

FRICTION = ("joint/hinge/damping=0.05", "joint/hinge/frictionloss=0.05", "body/pole/mass")
AXIS = """
<mujoco>
  <option timestep="0.01" integrator="implicitfast"/>
  <worldbody>
    <body><joint name="axis" type="slide" axis="1 0 0" damping="{damping}"/><geom size=".1" mass="2"/></body>
  </worldbody>
  <actuator><motor name="motor" joint="axis"/></actuator>
  <sensor><jointpos name="x" joint="axis"/></sensor>
</mujoco>
"""


def record(text, *, runs=3, samples=300, every=20, noise=NOISE, push=0.0):
    """Runs under random steps of force, with a force that wanders by `push` a sample beside it."""
    model, rng, rollouts = mujoco.MjModel.from_xml_string(text), np.random.default_rng(0), []
    names = tuple(model.sensor(i).name for i in range(model.nsensor))
    for run in range(runs):
        data, rows = mujoco.MjData(model), []
        data.qpos[:] = 0.5 * rng.normal()
        ctrl = 2 * np.repeat(rng.normal(size=(samples // every, 1)), every, axis=0)
        for u, extra in zip(ctrl, np.cumsum(push * rng.normal(size=samples)), strict=True):
            data.ctrl[:], data.qfrc_applied[:] = u, extra
            mujoco.mj_forward(model, data)
            rows.append(data.sensordata.copy())
            mujoco.mj_step(model, data)
        measured = np.array(rows) + noise * rng.normal(size=(samples, len(names)))
        units = ("rad", "rad/s") if len(names) == 2 else ("m",)
        fields = {"ctrl_names": ("motor",), "ctrl_units": ("N*m" if len(names) == 2 else "N",), "sensor_names": names}
        time = np.arange(samples) * 0.01
        rollouts.append(
            Rollout(name=f"r{run}", time=time, ctrl=ctrl, sensordata=measured, sensor_units=units, **fields)
        )
    return Log("", "simulated for a test", "CC0", tuple(rollouts))


def study(tmp_path, model, log, free, **options):
    (tmp_path / "model.xml").write_text(model)
    write_log(tmp_path / "log.h5", log)
    return IdentifyStudy(str(tmp_path / "model.xml"), (str(tmp_path / "log.h5"),), tuple(map(parse, free)), **options)


@pytest.mark.parametrize(
    ("damping", "frictionloss", "law"),
    [(0.1, 0.0, "viscous"), (0.0, 0.1, "Coulomb"), (0.08, 0.08, "viscous + Coulomb")],
)
def test_the_law_that_made_the_log_is_chosen(tmp_path, damping, frictionloss, law):
    log = record(PENDULUM.format(damping=damping, frictionloss=frictionloss, mass=0.7))
    asked = study(tmp_path, PENDULUM.format(damping=0.05, frictionloss=0.05, mass=1), log, FRICTION, choose="friction")
    found = identify(asked, tmp_path / "out").summary
    assert found["choice"]["friction"]["chosen"] == law
    freed = {path.rpartition("/")[2] for path in found["parameters"] if path.startswith("joint/")}
    assert freed == set(LAWS[law])
    model = mujoco.MjModel.from_xml_path(str(tmp_path / "out" / "model.xml"))
    assert model.dof_damping[0] == pytest.approx(damping, abs=2e-3)
    assert model.dof_frictionloss[0] == pytest.approx(frictionloss, abs=3e-3)
    text = identification_table(found)
    assert "friction law by cross-validation in 3 folds" in text
    assert any(line.startswith(f"{law} ") and line.endswith("chosen") for line in text.splitlines())


def test_a_longer_window_is_chosen_where_short_ones_show_little(tmp_path):
    """A slow axis whose noisy position alone is measured, with an exact model."""
    log = record(AXIS.format(damping=1), samples=800, every=100, noise=3e-3)
    free = ("joint/axis/damping=0.3", "actuator/motor/gear[0]=2")
    found = identify(
        study(tmp_path, AXIS.format(damping=0.3), log, free, choose="window", window=0.25), tmp_path / "out"
    )
    errors = {row["label"]: row["error_percent"] for row in found.summary["choice"]["window"]["tried"]}
    assert errors["0.25 s"] > 1.2 * errors["2 s"]
    assert found.summary["choice"]["window"]["chosen"] in ("1 s", "2 s", "full")
    assert found.study.window >= 1
    assert found.summary["windows"]["seconds"] >= 1


def test_a_short_window_is_chosen_where_the_model_drifts(tmp_path):
    """A force that no number of the model describes pushes the axis more and more astray."""
    log = record(AXIS.format(damping=1), samples=800, every=10, noise=1e-4, push=0.05)
    free = ("joint/axis/damping=0.3", "actuator/motor/gear[0]=2")
    asked = study(tmp_path, AXIS.format(damping=0.3), log, free, choose="window", window="full")
    found = identify(asked, tmp_path / "out").summary["choice"]["window"]
    errors = {row["label"]: row["error_percent"] for row in found["tried"]}
    assert errors["0.5 s"] < errors["full"]
    assert found["chosen"] != "full"


def test_held_out_runs_have_no_say(tmp_path, capsys):
    """The table is the same whatever the held-out run holds; and the command line takes both words."""
    log = record(PENDULUM.format(damping=0.1, frictionloss=0, mass=0.7), samples=200)
    other = list(log.rollouts)
    other[2] = Rollout(**{**vars(other[2]), "sensordata": other[2].sensordata[::-1]})
    tables = []
    for name, runs in (("a", log.rollouts), ("b", tuple(other))):
        (tmp_path / name).mkdir()
        asked = study(
            tmp_path / name, PENDULUM.format(damping=0.1, frictionloss=0, mass=1), Log("", "", "", runs), FRICTION[2:]
        )
        out = tmp_path / name / "out"
        options = [
            "--free",
            "body/pole/mass",
            "--choose",
            "friction",
            "--hold-out",
            "r2",
            "--no-report",
            "--out",
            str(out),
        ]
        assert main(["identify", asked.model, *asked.logs, *options]) == 0
        tables.append(json.loads((out / "summary.json").read_text())["choice"])
    assert tables[0] == tables[1]
    assert tables[0]["folds"] == 2
    assert "viscous" in capsys.readouterr().out


def test_terms_of_a_law_are_free_as_declared_and_others_zero(tmp_path):
    text = PENDULUM.format(damping=0.3, frictionloss=0.2, mass=1)
    asked = study(tmp_path, text, record(text, runs=1), ("joint/*/frictionloss=0.1@0:0.7", "body/pole/mass"))
    assert moved_joints(asked) == ["hinge"]
    rich = with_law(asked, ["hinge"], ("damping", "frictionloss"))
    assert [d.path for d in rich.free] == ["body/pole/mass", "joint/hinge/damping", "joint/hinge/frictionloss"]
    assert (rich.free[2].init, rich.free[2].high) == (0.1, 0.7)
    assert (rich.model.mj.dof_damping[0], rich.model.mj.dof_frictionloss[0]) == (0.3, 0.2)
    dry = with_law(asked, ["hinge"], ("frictionloss",))
    assert (dry.model.mj.dof_damping[0], dry.model.mj.dof_frictionloss[0]) == (0.0, 0.2)


def test_a_resumed_run_does_not_choose_again(tmp_path, monkeypatch):
    class Killed(Exception):
        pass

    def kill(news):
        if news.stage == "start states estimated":
            raise Killed

    text = PENDULUM.format(damping=0.1, frictionloss=0, mass=0.7)
    asked = study(tmp_path, text, record(text, samples=200), FRICTION[2:], choose="friction")
    whole = identify(asked, tmp_path / "whole").summary
    with pytest.raises(Killed):
        identify(asked, tmp_path / "killed", progress=kill)
    monkeypatch.setattr(module, "choose", lambda *a: pytest.fail("chosen again"))
    again = identify(asked, tmp_path / "killed", resume=True).summary
    assert again["choice"] == whole["choice"]
    assert again["parameters"] == whole["parameters"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"choose": "windows"}, "write window or friction"),
        ({"choose": ""}, "write window or friction"),
        ({"choose": "window", "fit": "torque"}, "needs a fit of motion"),
        ({"choose": "window", "window": 0.0}, "needs a fit of motion"),
    ],
)
def test_what_cannot_be_chosen_is_refused(tmp_path, changes, words):
    text = PENDULUM.format(damping=0.3, frictionloss=0.2, mass=1)
    with pytest.raises(DsoError, match=words):
        study(tmp_path, text, record(text, runs=1), FRICTION, **changes)
