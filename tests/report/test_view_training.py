"""Episodes of trainings and designs, as `dso view` and the report show them."""

import mujoco
import numpy as np
import pytest

from dso_robotics import cli
from dso_robotics.data.run_file import read_run
from dso_robotics.errors import DsoError
from dso_robotics.report.replay import read_replay
from tests.studies.train_robots import write

_GEAR = '\n[design.drive]\nkind = "gear"\nof = "push"\nlow = 1.0\nhigh = 4.0\n'


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trainings")
    for command, more in (("train", ""), ("design", _GEAR)):
        study = write(folder, iterations=20, more=more)
        assert cli.main([command, str(study), "--out", str(folder / command), "--no-report"]) == 0
    return folder


def test_a_replay_is_the_episode_on_c(results):
    """The cart's policy is linear: what is replayed must be the motion of the written model under it."""
    trained, untrained = read_replay(results / "train"), read_replay(results / "train", "untrained")
    assert trained.shade is None
    assert np.isnan(trained.measured).all()
    assert "on C MuJoCo" in trained.caption
    np.testing.assert_allclose(trained.time, 0.05 * np.arange(41), atol=1e-9)
    model = mujoco.MjModel.from_xml_path(str(results / "train" / "model.xml"))
    data = mujoco.MjData(model)
    data.qpos[:] = 1.0
    tree, _, _ = read_run(results / "train" / "run.h5")
    weights = tree["theta"]["policy"]
    for pose in trained.predicted[1:, 0]:
        seen = (np.array([data.qpos[0], data.qvel[0]]) - tree["scaling"]["mean"]) / tree["scaling"]["spread"]
        data.ctrl[:] = weights[:2] @ seen + weights[2]
        mujoco.mj_step(model, data)
        assert pose == pytest.approx(data.qpos[0], abs=1e-6)
    # The untrained policy is zero, so the cart stays.
    np.testing.assert_allclose(untrained.predicted, 1.0, atol=1e-6)
    assert trained.predicted[-1, 0] < 0.99
    with pytest.raises(DsoError, match="'untrained'"):
        read_replay(results / "train", "run1")


def test_a_design_of_another_shape_has_the_first_mechanism_as_its_ghost(results):
    plain = read_replay(results / "design")
    assert plain.model.actuator_gear[0, 0] > 2.05
    # Another gear looks the same, and a ghost would only darken it.
    assert plain.shade is None
    assert np.isnan(plain.measured).all()
    written = results / "design" / "model.xml"
    written.write_text(written.read_text().replace('size="0.1 0.1 0.1"', 'size="0.3 0.1 0.1"'))
    found = read_replay(results / "design")
    np.testing.assert_array_equal(found.measured, found.predicted)
    assert found.shade is not None
    assert found.shade.geom_size[0, 0] == 0.1
    assert found.model.geom_size[0, 0] == 0.3
    beside = found.beside(read_replay(results / "train"))
    np.testing.assert_allclose(beside.measured, read_replay(results / "train").predicted)
    assert "other result" in beside.caption
    untrained = read_replay(results / "design", "untrained")
    assert untrained.model.actuator_gear[0, 0] == 2.0
