"""A sliding box: friction is found from any start, since the cost has bends where contacts are made and lost."""

import mujoco
import numpy as np
import pytest

from dso_robotics.core.likelihood import Normal
from dso_robotics.costs.identification import WindowedIdentification
from dso_robotics.data.log import Log, write_log
from dso_robotics.data.match import match_channels
from dso_robotics.data.rollout import Rollout
from dso_robotics.data.windows import cut
from dso_robotics.parameters.path import parse
from dso_robotics.parameters.vector import pack
from dso_robotics.physics.model import load
from dso_robotics.robot.prediction import CPrediction
from dso_robotics.robot.start import guess
from dso_robotics.studies.identify import identify
from dso_robotics.studies.scan import lower, scan
from dso_robotics.studies.study import IdentifyStudy

PUCK = """<mujoco><option timestep="0.002" cone="elliptic" impratio="10"/><worldbody>
<geom name="table" type="plane" size="2 2 .1" friction="{0}"/><body name="puck" pos="0 0 .02"><freejoint/>
<geom name="puck" type="box" size=".04 .04 .02" mass=".3" friction="{0}"/></body></worldbody>
<sensor><framepos name="p" objtype="body" objname="puck"/></sensor></mujoco>"""
TRUE = 0.3


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The model with another friction, and a log of pushes with recorded states."""
    folder = tmp_path_factory.mktemp("puck")
    model, rollouts = mujoco.MjModel.from_xml_string(PUCK.format(TRUE)), []
    for r in range(2):
        data, rows, rng = mujoco.MjData(model), [], np.random.default_rng(r)
        data.qpos[2] = 0.0199
        data.qvel[:2] = 1.2 + 0.4 * r, 0.2 * r
        for _ in range(80):
            mujoco.mj_forward(model, data)
            rows.append(np.concatenate([data.qpos, data.qvel, data.sensordata]))
            mujoco.mj_step(model, data, nstep=5)
        table = np.array(rows)
        rollouts.append(
            Rollout(
                name=f"push{r}",
                time=0.01 * np.arange(80),
                sensordata=table[:, 13:] + 2e-4 * rng.normal(size=(80, 3)),
                sensor_names=("p[0]", "p[1]", "p[2]"),
                qpos=table[:, :7],
                qvel=table[:, 7:13],
            )
        )
    write_log(folder / "log.h5", Log("", "simulated for a test", "CC0", tuple(rollouts)))
    (folder / "puck.xml").write_text(PUCK.format(0.8))
    return folder, tuple(rollouts)


TIED = "geom/puck/friction[0]+geom/table/friction[0]"


@pytest.mark.parametrize("begin", [0.05, 0.8])
def test_friction_is_found_from_any_start(files, begin, tmp_path):
    folder, _ = files
    asked = IdentifyStudy(
        model=str(folder / "puck.xml"), logs=(str(folder / "log.h5"),), free=(parse(f"{TIED}={begin}"),), window=0.4
    )
    summary = identify(asked, tmp_path / "out").summary
    found = summary["parameters"][TIED]
    assert found["initial"] == begin
    assert found["value"] == pytest.approx(TRUE, rel=0.03)
    assert not any("lower elsewhere" in text for text in summary["warnings"])


def test_a_solution_with_a_lower_cost_elsewhere_is_said(files):
    folder, rollouts = files
    robot = load(folder / "puck.xml")
    channels = match_channels(Log("", "", "", rollouts), robot.mj)
    windows = cut(rollouts, channels, timestep=0.002, seconds=0.4)
    vector = pack([parse(f"{TIED}=0.8")], robot)
    prediction, x = CPrediction(vector, windows), guess(windows, vector.mj)

    def problem():
        return WindowedIdentification(vector, windows, prediction, free_starts=False, likelihood=Normal())

    z, _, _ = scan(problem, vector.initial, x)
    assert z[0] == pytest.approx(TRUE, rel=0.1)
    (text,) = lower(vector, problem, np.array([0.8]), x)
    assert TIED in text
    assert "do not determine" in text
    assert f"={z[0]:.4g}" in text
    assert lower(vector, problem, z, x) == []
