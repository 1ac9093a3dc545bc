"""`dso.train` and `dso.design`: float64 whoever calls, keyword arguments, a policy that plays what the training played."""

import inspect

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

import dso_robotics as dso
from dso_robotics.public import training
from tests.studies.train_robots import CART, write

TABLES = {
    "cost": {
        "place": {"kind": "square", "quantity": "joint/x/position"},
        "effort": {"kind": "control", "weight": 0.3},
    },
    "seconds": 2.0,
    "policy": {"kind": "linear", "noise": 0.1},
    "start": {"position": {"x": 1.0}},
    "training": {
        "environments": 8,
        "horizon": 8,
        "iterations": 3,
        "critic_hidden": 16,
        "learning_rate": 0.05,
    },
}


@pytest.fixture(scope="module")
def found():
    """Called by someone whose JAX computes in float32, with the model as an object."""
    seen = []
    with jax.enable_x64(False):
        result = dso.train(
            mujoco.MjSpec.from_string(CART), **TABLES, progress=lambda news: seen.append(jnp.ones(1).dtype)
        )
        assert jnp.ones(1).dtype == jnp.float32
    assert set(seen) == {jnp.dtype("float64")}
    return result


def test_it_trains_in_float64_and_shows_itself(found):
    assert found.run.theta.dtype == np.float64
    assert np.any(found.run.theta != found.run.theta.astype(np.float32))
    assert found.summary["cost"]["total"] < found.summary["cost"]["before"]
    assert found.converged is not any("come to rest" in text for text in found.warnings)
    assert found.parameters == {}
    assert "cost of an episode" in str(found)
    assert "weighted value" in found._repr_html_()
    assert "pathwise" in found._repr_html_()
    assert found.model().nu == 1


def test_the_policy_plays_the_episode_that_the_training_played(found):
    policy, model = found.policy, found.model()
    policy.reset()
    assert found.policy is policy  # so that what it remembers stays
    episode, data = found.run.episodes[0], mujoco.MjData(model)
    data.qpos[:], data.qvel[:] = episode.qpos[0], episode.qvel[0]
    for step, ctrl in enumerate(episode.ctrl):
        data.ctrl[:] = policy.act(data)
        np.testing.assert_allclose(data.ctrl, ctrl, rtol=1e-12, atol=1e-12)
        mujoco.mj_step(model, data)
        np.testing.assert_allclose(data.qpos, episode.qpos[step + 1], rtol=1e-12, atol=1e-12)


def test_what_is_saved_holds_the_policy_and_the_report(found, tmp_path):
    kept = found.save(tmp_path / "kept", video=False)
    assert {"report.html", "summary.json", "run.h5", "model.xml"} <= {path.name for path in kept.iterdir()}
    one, two = found.policy, dso.Policy.load(kept)
    np.testing.assert_array_equal(one.act(qpos=[0.3], qvel=[0.1]), two.act(qpos=[0.3], qvel=[0.1]))
    assert repr(two) == "Policy(linear, sees x, x velocity; controls push every 0.05 s)"


def test_a_study_file_and_arguments_are_put_together(tmp_path):
    from dso_robotics.public.inputs import Inputs

    path, inputs = write(tmp_path, iterations=5), Inputs(tmp_path)
    tables = {name: None for name in training._TABLES} | {"training": {"iterations": 2}}
    study = training._study(path, None, tables, {"seed": 4, "free": None}, inputs, None, "train")
    assert (study.training.iterations, study.training.horizon, study.seed) == (2, 8, 4)
    assert study.model == str(tmp_path / "cart.xml")


def test_errors_speak_of_arguments(tmp_path):
    path = write(tmp_path)
    with pytest.raises(dso.DsoError, match="no study was given"):
        dso.train()
    with pytest.raises(dso.DsoError, match="the study has no cost"):
        dso.train(tmp_path / "cart.xml")
    with pytest.raises(dso.DsoError, match="precision='half'"):
        dso.train(path, precision="half")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("")
    with pytest.raises(dso.DsoError, match=r"nothing in it is overwritten unasked.*force=True"):
        dso.train(path, out=tmp_path / "out")
    with pytest.raises(dso.DsoError, match="so there is no mechanism to design"):
        dso.design(path)
    with pytest.raises(TypeError, match="unexpected keyword argument 'sede'"):
        dso.design(path, sede=1)


def test_design_takes_what_train_takes():
    known = {"study", "model", "out", "progress", *training._TABLES, *training._NUMBERS, *training._OPTIONS}
    assert set(inspect.signature(dso.train).parameters) == known
