"""Many starts: the drawn ones respect their bounds, and they find what a search from a bad start does not."""

import numpy as np
import pytest

from dso_robotics.data.log import write_log
from dso_robotics.errors import DsoError
from dso_robotics.parameters.path import parse
from dso_robotics.parameters.vector import pack
from dso_robotics.physics.model import load
from dso_robotics.studies.identify import identify
from dso_robotics.studies.starts import draw
from dso_robotics.studies.study import IdentifyStudy
from tests.pendulum import PENDULUM, TRUTH, record


def test_drawn_starts_keep_to_their_bounds(models):
    robot = load(models / "two_joint_arm.xml")
    free = ("joint/*/damping=0.01", "body/upper/mass=0.5@0.4:0.6", "actuator/tau2/gear=-1", "body/lower/inertia")
    vector = pack(map(parse, free), robot)
    points = draw(vector, 200, 0)
    np.testing.assert_array_equal(points[0], vector.initial)
    assert ((points >= vector.low) & (points <= vector.high)).all()
    mass = points[1:, 2]
    assert mass.min() < 0.42
    assert mass.max() > 0.58
    assert np.std(np.log(points[1:, 0])) == pytest.approx(np.log(3), rel=0.2)
    np.testing.assert_array_equal(points, draw(vector, 200, 0))


def test_many_starts_find_the_motor_turned_round(tmp_path):
    """From a gear of the wrong sign and a stiff spring the search ends in a local optimum."""
    text = PENDULUM.format(**TRUTH).replace('name="hinge" axis', 'name="hinge" stiffness="60" axis')
    (tmp_path / "pendulum.xml").write_text(text)
    write_log(tmp_path / "log.h5", record(0))
    free = ("joint/hinge/stiffness@0:80", "joint/hinge/damping", "actuator/motor/gear=-3@-4:4")
    study = {
        "model": str(tmp_path / "pendulum.xml"),
        "logs": (str(tmp_path / "log.h5"),),
        "free": tuple(map(parse, free)),
    }
    found = identify(IdentifyStudy(**study, starts=12), tmp_path / "many").summary
    assert len(found["starts"]["costs"]) == 12
    assert found["parameters"]["actuator/motor/gear[0]"]["value"] == pytest.approx(1.0, rel=0.03)
    alone = identify(IdentifyStudy(**study), tmp_path / "one").summary
    assert found["cost"]["total"] <= alone["cost"]["total"] + 1e-6 * abs(alone["cost"]["total"])
    with pytest.raises(DsoError, match="starts = 0"):
        IdentifyStudy(**study, starts=0)
