"""One study that names all nine costs and frees all seven blocks: its gradients, its training, and what it leaves."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from dso_robotics.robot.estimator import Estimator
from dso_robotics.studies.gradient_check import check_gradients
from dso_robotics.studies.train import train
from dso_robotics.studies.train_build import build
from dso_robotics.studies.train_study import TrainStudy
from tests.studies.everything import write

COSTS = {
    "task", "tracking", "control", "ahead", "known", "imitated", "bench", "recorded", "watched", "filtered",
}  # fmt: skip
BLOCKS = {"policy", "physics", "sensor", "design", "action noise", "sensor noise", "corrector"}
# A wrong or missing path of a derivative shows as zero; these are zero in truth.
NOTHING = {("physics", "bench"), ("design", "known"), ("sensor", "known")}


@pytest.fixture(scope="module")
def cart(tmp_path_factory):
    """A cart with an estimator, its study and the training's result."""
    folder = tmp_path_factory.mktemp("everything")
    study = TrainStudy.read(write(folder, "cart", iterations=2))
    return build(study), train(study, folder / "out"), folder / "out"


def agree(checks, least: float = 1e-6) -> None:
    for check in checks:
        assert check.error < least, check
        assert (abs(check.exact) > 1e-5) == ((check.block, check.source) not in NOTHING), check


def test_every_block_and_every_cost_has_the_gradient_of_c(cart):
    task, _, _ = cart
    assert task.engine.name == "mujoco"
    checks = check_gradients(task, steps=4)
    assert {check.block for check in checks} == BLOCKS
    assert {check.source for check in checks} == {"rollouts"} | (COSTS - {"task", "tracking", "control", "ahead"})
    # Costs of logs take forward differences of C by the numbers of the robot.
    agree(checks, 5e-6)


def test_costs_of_rollouts_do_not_move_the_world(cart):
    task, _, _ = cart
    mask, where = task.flow.masks["rollouts"], task.chain.layout.where
    for block in ("physics", "sensor", "sensor noise"):
        assert not mask[where(block)].any()
    for block in ("policy", "design", "corrector", "action noise"):
        assert mask[where(block)].all()
    # Only the noise of the channel that was named is free.
    held = [not any(m[i] for m in task.flow.masks.values()) for i in np.r_[where("sensor noise")]]
    assert held == [True, False]


def test_all_of_it_trains_and_is_reported(cart):
    task, found, out = cart
    summary, theta = found.summary, jnp.asarray(found.theta)
    moved = np.asarray(theta) - task.chain.layout.initial
    for name in BLOCKS:
        assert np.abs(moved[task.chain.layout.where(name)]).max() > 1e-6
    cost = summary["cost"]
    assert set(cost["terms"]) | set(cost["supervised"]) == COSTS == set(cost["weights"])
    assert set(summary["flow"]) == BLOCKS
    assert "Gauss-Newton matrix of the likelihoods" in summary["method"]["reason"]
    assert summary["parameters"]["sensor/speed/noise"]["value"] == pytest.approx(
        float(np.exp(task.chain.layout.split(theta)["sensor noise"][1]))
    )
    learned = Estimator.load(out).learned
    assert learned.names == ("place", "speed")
    assert learned.bias[0] == pytest.approx(summary["parameters"]["sensor/place/bias"]["value"])


@pytest.mark.long
@pytest.mark.parametrize("engine", ["mujoco", "mjx"])
@pytest.mark.parametrize("name", ["cart", "cartpole", "arm", "floater"])
def test_gradients_on_both_engines(name, engine, tmp_path):
    study = TrainStudy.read(write(tmp_path, name, weight='"balance"'))
    agree(check_gradients(build(dataclasses.replace(study, engine=engine))), 1e-6 if engine == "mjx" else 1e-5)
