"""Studies of logs alone: Gauss-Newton finds the truth, weights in words, and the steps that curvature scales."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from dso_robotics.core.method.curved_step import curved_step
from dso_robotics.data.log import write_log
from dso_robotics.data.record import Flaws, record
from dso_robotics.errors import DsoError
from dso_robotics.studies.train import train
from dso_robotics.studies.train_build import build
from dso_robotics.studies.train_study import TrainStudy
from tests.studies.everything import CART

TRUE = CART.replace('damping="0.1"', 'damping="0.6"').replace('mass="1"', 'mass="1.4"')
STUDY = """
model = "robot.xml"
seconds = 0.5
free = ["joint/x/damping=0.1@0:5", "body/cart/mass=1@0.2:5", "sensor/place/noise"]
[sensors]
noise = { place = 0.05, speed = 0.02 }
[cost.recorded]
kind = "identification"
log = "log.h5"
window = 0.5
[cost.bench]
kind = "calibration"
log = "log.h5"
[cost.known]
kind = "prior"
numbers = { "body/cart/mass" = [1.0, 0.5] }
weight = WEIGHT
[training]
iterations = 30
"""


@pytest.fixture
def study(tmp_path):
    """A log of a heavier cart with more friction, whose place has a noise of 0.01."""
    (tmp_path / "robot.xml").write_text(CART)
    model, rng = mujoco.MjModel.from_xml_string(TRUE), np.random.default_rng(0)
    ctrl = np.sign(np.sin(np.linspace(0, 25, 200)))[:, None]
    log = record(model, rng, [("one", ctrl)], flaws=Flaws(sensor_noise={"*": 0.01}), keep_state=True)
    write_log(tmp_path / "log.h5", log)

    def write(weight: str = "1e-6", change: tuple[str, str] = ("", "")) -> TrainStudy:
        (tmp_path / "study.toml").write_text(STUDY.replace("WEIGHT", weight).replace(*change))
        return TrainStudy.read(tmp_path / "study.toml")

    return write


def test_gauss_newton_finds_the_truth(study, tmp_path):
    found = train(study(), tmp_path / "out").summary
    values = {path: row["value"] for path, row in found["parameters"].items()}
    assert found["method"]["name"] == "gauss_newton"
    assert found["converged"]
    assert values["joint/x/damping"] == pytest.approx(0.6, rel=0.01)
    assert values["body/cart/mass"] == pytest.approx(1.4, rel=0.01)
    assert values["sensor/place/noise"] == pytest.approx(0.01, rel=0.15)
    assert found["environment_steps"] == 0
    assert found["evaluations"] < 20


def test_a_balanced_weight_makes_gradients_equally_long(study):
    task = build(study('"balance"', ("[1.0, 0.5]", "[2.0, 0.5]")))
    theta, at = jnp.asarray(task.chain.layout.initial), task.chain.layout.where("physics")
    slope = {
        name: np.asarray(jax.jit(jax.grad(lambda t, cost=cost: cost(task.chain, t)))(theta))[at]
        for name, cost in task.supervised.items()
    }
    assert np.linalg.norm(slope["known"]) == pytest.approx(np.linalg.norm(slope["recorded"] + slope["bench"]), rel=1e-9)
    assert any("cost known: weight" in note and "physics" in note for note in task.notes)


def test_what_has_no_gradient_cannot_be_balanced(study):
    """The mass starts at the prior's mean, where no weight gives the prior a gradient."""
    task = build(study('"balance"'))
    assert task.supervised["known"].weight == 1.0
    assert "nothing to balance" in " ".join(task.notes)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (("[training]", '[training]\nmethod = "pathwise"'), "no cost is of the motion"),
        (("[training]", "[judge]\n[training]"), "nothing to judge"),
        (("[training]", '[flow]\nphysics = ["rollouts"]\n[training]'), "no source 'rollouts'"),
        (("[training]", '[flow]\ndesign = ["bench"]\n[training]'), "no free block of that name"),
        (("[training]", "[flow]\nphysics = []\n[training]"), "no cost moves the block 'physics'"),
    ],
)
def test_what_does_not_suit_is_refused(study, change, text):
    with pytest.raises(DsoError, match=text):
        build(study("1.0", change))


def test_a_curved_step_is_newtons_and_its_length_is_limited_by_block():
    matrix = jnp.array([[2.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 1e-12]])
    gradient = jnp.array([0.02, -0.01, 0.0])
    np.testing.assert_allclose(
        curved_step(matrix, gradient)[:2], np.linalg.solve(matrix[:2, :2], gradient[:2]), rtol=0.01
    )
    # A long step of one block leaves the other's alone.
    step = curved_step(matrix, jnp.array([0.02, -50.0, 0.0]), (np.array([0]), np.array([1, 2])))
    alone = curved_step(matrix, jnp.array([0.02, -50.0, 0.0]))
    assert abs(float(step[1])) == pytest.approx(0.3)
    assert abs(float(step[0])) > 2 * abs(float(alone[0]))
    # An entry without curvature does not move, whatever its gradient.
    flat = curved_step(jnp.diag(jnp.array([1.0, 0.0])), jnp.array([0.1, 5.0]))
    assert float(flat[1]) == 0.0
