"""Episodes of trainings and designs, as `dso view` and the report show them."""

import mujoco
import numpy as np
import pytest

from dso_robotics import cli
from dso_robotics.data.run_file import read_run
from dso_robotics.errors import DsoError
from dso_robotics.physics import loop
from dso_robotics.physics.model import load
from dso_robotics.report import replay as replays
from dso_robotics.report.replay import read_replay
from dso_robotics.robot.closing import closing
from tests.linkages import four_bar
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


def test_the_ghost_of_a_linkage_is_closed(tmp_path):
    """At the joint positions of the new lengths the old ones would not meet at the pin."""
    old, new = (load(four_bar(*lengths)) for lengths in ((0.1, 0.3, 0.2), (0.1, 0.33, 0.22)))
    close, linkage, poses = closing(new, new.mj, new.mj.qpos0, {"crank"}), loop.loops(old.mj), []
    assert close is not None
    assert linkage is not None
    assert old.spec is not None
    assert new.spec is not None
    for angle in (0.0, 0.5, 1.0):
        poses.append(close(loop.model_fields(new.mj), np.array([angle, 0.0, 0.0]), np.zeros(3))[0])
    (tmp_path / "model.xml").write_text(new.spec.to_xml())
    episode = {"time": np.arange(3.0), "qpos": np.array(poses)}
    tree = {"status": "finished", "command": "design", "motions": {"trained": episode}}
    found = replays._read_episode(tmp_path, tree, {"model": "four_bar.xml"}, old.spec.to_xml(), "trained")
    shown = found.measured
    assert linkage.gap(loop.model_fields(old.mj), np.array(poses)).max() > 1e-2
    assert linkage.gap(loop.model_fields(old.mj), shown).max() < 1e-9
    np.testing.assert_array_equal(shown[:, 0], [0.0, 0.5, 1.0])  # the crank is where it was
    assert np.abs(shown - poses).max() < 0.5
    assert "loops closed" in found.caption
