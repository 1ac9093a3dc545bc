"""An estimator in the loop on C MuJoCo: its predictions and their derivatives, in windows that C simulated and linearised."""

import dataclasses

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from dso_robotics.physics.model import load
from dso_robotics.robot.windows import CWindows
from dso_robotics.studies.gradient_check import check_gradients
from dso_robotics.studies.train_build import build
from dso_robotics.studies.train_engine import choose_engine
from dso_robotics.studies.train_study import TrainStudy
from tests.studies.everything import ARM, CART, FLOATER

LATE = ARM.replace("</sensor>", '<accelerometer name="felt" site="tip"/></sensor>')
STUDY = """
model = "robot.xml"
engine = "{engine}"
seconds = 0.8
control_step = {step}
free = {free}
randomise = {{ {randomise} }}
[policy]
kind = "linear"
noise = 0.2
learn_noise = true
observe = "estimate"
[start]
position = {{ {start} }}
spread = 0.02
[sensors]
noise = {{ "*" = 0.02 }}
[estimator]
corrector = "{corrector}"
units = 3
model = "{believes}"
error = 0.05
[design.part]
kind = "gear"
of = "{geared}"
[cost.task]
kind = "square"
quantity = "joint/{joint}/position"
[cost.ahead]
kind = "estimation"
weight = 0.01
{flow}
[training]
environments = 4
horizon = 6
iterations = 2
critic_hidden = 8
learning_rate = 0.01
"""
MOVED = '[flow]\nphysics = ["rollouts"]\nsensor = ["rollouts"]'
CASES = {
    "own model, two steps of the model in one of control": dict(
        xml=ARM, believes="own", corrector="mlp", step=0.04, free=["joint/elbow/damping=0.2@0:2"],
        randomise='"body/lower/mass" = [0.2, 0.4]',
    ),
    "late sensors, forces": dict(
        xml=LATE, believes="world", corrector="recurrent", step=0.02,
        free=["joint/elbow/damping=0.2@0:2", "sensor/q1/delay=0.03@0:0.05", "sensor/felt/bias[0]=0.1@-1:1"], flow=MOVED,
    ),
    "the model of the file": dict(
        xml=ARM, believes="nominal", corrector="gain", step=0.02,
        free=["body/lower/mass=0.4@0.1:1", "sensor/q1/scale=1.1@0.5:2"], flow=MOVED,
    ),
    "quaternions": dict(
        xml=FLOATER, believes="world", corrector="linear", step=0.02, start="wrist = 0.2", geared="turn", joint="wrist",
        free=["body/hull/mass=1.1@0.5:3"],
    ),
}  # fmt: skip
ARMS = {"start": "shoulder = 0.4, elbow = 0.5", "geared": "two", "joint": "elbow", "randomise": "", "flow": ""}
CART_CASE = {
    "xml": CART, "believes": "own", "corrector": "recurrent", "step": 0.1, "start": "x = 0.5", "geared": "push",
    "joint": "x", "randomise": "", "flow": MOVED,
    "free": ["body/cart/mass=1.2@0.2:5", "sensor/place/delay=0.13@0:0.3", "sensor/speed/bias=0.1@-1:1"],
}  # fmt: skip


def made(folder, case, engine="mujoco"):
    given = ARMS | case | {"engine": engine}
    (folder / "robot.xml").write_text(given["xml"])
    path = folder / f"{engine}.toml"
    path.write_text(STUDY.format(**given))
    return TrainStudy.read(path)


@pytest.mark.parametrize("case", CASES)
def test_gradients_of_every_block_are_those_of_differences_of_c(tmp_path, case):
    task = build(made(tmp_path, CASES[case]))
    checks = check_gradients(task, steps=5)
    wanted = {"policy", "design", "action noise", "corrector"} | ({"model"} if "own" in case else set())
    assert wanted <= {check.block for check in checks}
    for check in checks:
        assert check.error < 1e-5, check
        assert abs(check.exact) > 1e-6, check


def test_estimates_along_a_window_are_those_of_mjx(tmp_path):
    found = []
    for engine in ("mjx", "mujoco"):
        chain = build(made(tmp_path, CART_CASE, engine)).chain
        rng = np.random.default_rng(1)
        theta = jnp.asarray(chain.layout.initial + 0.1 * rng.standard_normal(chain.layout.size))
        start = jax.vmap(lambda key, chain=chain, theta=theta: chain.initial(key, theta))(
            jax.random.split(jax.random.key(0), 3)
        )
        states = CWindows(chain)(theta, chain.scaling, start, rng.standard_normal((3, 7, chain.noises)))
        assert states.estimated is not None
        found.append(states.estimated)
    for mjx, c in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(c, mjx, rtol=1e-9, atol=1e-10)
    # The late sensor shows what was estimated before.
    assert np.abs(np.diff(found[1].belief.past[:, :, :, 0], axis=1)).max() > 1e-3


def test_the_engine_of_a_long_training_is_mjx_if_it_has_the_model(tmp_path):
    study = made(tmp_path, CART_CASE, "auto")
    long = dataclasses.replace(study, training=dataclasses.replace(study.training, iterations=20_000))
    robot = load(tmp_path / "robot.xml")
    assert choose_engine(study, robot).name == "mujoco"
    chosen = choose_engine(long, robot)
    assert (chosen.name, "estimator" in chosen.reason) == ("mjx", True)
    rough = CART.replace("<worldbody>", '<worldbody><geom name="drum" type="cylinder" size="1 1" pos="9 0 0"/>')
    refused = load(mujoco.MjSpec.from_string(rough.replace('<flag contact="disable" eulerdamp="disable"/>', "")))
    assert choose_engine(long, refused).name == "mujoco"
