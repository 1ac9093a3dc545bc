"""What the data cannot see stays unknown: no zero-width interval, no impossible body, and words that say so."""

import numpy as np
import pytest
from scipy.special import log_ndtr

from dso_robotics.data.log import write_log
from dso_robotics.errors import DsoError
from dso_robotics.parameters.path import Declaration, parse
from dso_robotics.studies import summary
from dso_robotics.studies.identify import identify
from dso_robotics.studies.study import IdentifyStudy
from tests.pendulum import record

# A second joint that no sensor watches and no force reaches.
IDLE = (
    '<body name="idle" pos="1 0 0"><joint name="idle" axis="0 0 1" damping="0.1"/><geom size="0.1"/></body></worldbody>'
)


def run(folder, out, *free, **changes):
    settings = {"model": str(folder / "pendulum.xml"), "logs": (str(folder / "pendulum.h5"),)}
    return identify(IdentifyStudy(**(settings | changes), free=tuple(map(parse, free))), out)


def test_a_number_without_any_gradient_is_not_known_perfectly(pendulum, tmp_path):
    text = (pendulum / "pendulum.xml").read_text().replace("</worldbody>", IDLE)
    (tmp_path / "idle.xml").write_text(text)
    free = ("joint/hinge/damping", "joint/idle/damping=0.2@0:5", "joint/idle/armature")
    found = run(pendulum, tmp_path / "out", *free, model=str(tmp_path / "idle.xml"))
    bounded, open_ended, seen = (found.summary["parameters"][p.split("=")[0]] for p in (*free[1:], free[0]))
    assert (bounded["low95"], bounded["high95"]) == (0.0, 5.0)
    assert (open_ended["low95"], open_ended["high95"]) == (0.0, np.inf)
    assert not bounded["determined"]
    assert not open_ended["determined"]
    assert seen["determined"]
    assert seen["high95"] - seen["low95"] < 0.1
    assert found.summary["converged"]
    for name in ("joint/idle/damping", "joint/idle/armature"):
        assert any(f"do not determine {name}: its value" in w for w in found.summary["warnings"])


def test_a_planar_motion_leaves_most_of_a_body_open_and_every_interval_possible(pendulum, tmp_path):
    found = run(pendulum, tmp_path / "out", "joint/hinge/damping", "body/pole/inertia")
    table = {k.split("[")[-1][:-1]: v for k, v in found.summary["parameters"].items() if "inertia" in k}
    for name in ("mass", "Ixx", "Iyy", "Izz"):
        assert 0 < table[name]["low95"] < table[name]["value"] < table[name]["high95"]
    # Along the hinge's axis nothing moves the centre of mass: its prior, a share of the body's own extent, is all there is.
    # Its extent is sqrt((Ixx + Izz - Iyy) / 2 / mass) = 0.022 m.
    assert table["com_y"]["high95"] - table["com_y"]["low95"] == pytest.approx(2 * 1.96 * np.sqrt(0.0005), rel=0.1)
    assert not table["com_y"]["determined"]
    assert not table["Ixy"]["determined"]
    # A pendulum shows mass times distance and one moment about its hinge, never the mass alone.
    assert not table["mass"]["determined"]
    assert table["com_x"]["determined"]
    assert any(
        "do not determine" in w and "com_y" in w and "of body/pole/inertia" in w for w in found.summary["warnings"]
    )


def test_few_windows_are_said_to_leave_only_the_likelihood(pendulum, tmp_path):
    write_log(tmp_path / "short.h5", record(0, runs=1, seconds=2.0))
    found = run(pendulum, tmp_path / "out", "joint/hinge/damping", "body/pole/mass", logs=(str(tmp_path / "short.h5"),))
    assert found.summary["uncertainty"]["method"] == "likelihood"
    assert any("Only 4 windows for 2 free numbers" in w for w in found.summary["warnings"])


def test_a_prior_that_would_be_ignored_is_refused(pendulum, tmp_path):
    free = (Declaration("body/pole/inertia", prior=(1.0, 0.1)),)
    study = IdentifyStudy(str(pendulum / "pendulum.xml"), (str(pendulum / "pendulum.h5"),), free)
    with pytest.raises(DsoError, match=r"body/pole/inertia: .*ten numbers.*prior"):
        identify(study, tmp_path / "out")


def test_a_spring_that_is_not_there_is_not_told_to_become_negative(pendulum, tmp_path):
    write_log(tmp_path / "log.h5", record(1, runs=2))
    free = ("joint/hinge/damping", "joint/hinge/frictionloss", "joint/hinge/stiffness=0.1", "body/pole/mass")
    found = run(pendulum, tmp_path / "out", *free, logs=(str(tmp_path / "log.h5"),))
    entry = found.summary["parameters"]["joint/hinge/stiffness"]
    assert entry["at_bound"]
    assert 0 == entry["low95"] < 1e-4 < entry["high95"] < 1e-2
    (warning,) = (w for w in found.summary["warnings"] if w.startswith("At a bound"))
    assert "Zero is the least" in warning
    assert "widen" not in warning


@pytest.mark.parametrize("distance", [0.0, 3.0, 12.0, 30.0])
def test_the_interval_at_a_bound_holds_95_percent_however_far_the_data_pull(distance):
    """Of a normal variable `distance` standard deviations below the bound, given that it is above."""
    end = summary._beyond_bound(-2 * distance, 2.0) / 2
    above, beyond = log_ndtr(-distance), log_ndtr(-distance - end)
    assert np.exp(beyond - above) == pytest.approx(0.05, rel=1e-6)
