"""Studies that cannot be meant are refused by name before anything is compiled: places, noise, lengths, keys, Python costs."""

import pytest

from dso_robotics.errors import DsoError
from dso_robotics.physics.model import load
from dso_robotics.studies.train_build import build
from dso_robotics.studies.train_refuse import refuse_senseless
from dso_robotics.studies.train_study import TrainStudy

ROBOT = """<mujoco model="cartpole">
  <option timestep="0.02"><flag contact="disable"/></option>
  <worldbody><body name="cart"><joint name="slider" type="slide" axis="1 0 0" range="-1.8 1.8" limited="true"/>
    <geom size=".1" mass="1"/>
    <body name="pole"><joint name="hinge" axis="0 1 0"/><geom type="capsule" fromto="0 0 0 0 0 .6" size=".03" mass=".2"/>
      <body name="top" pos="0 0 .6"><joint name="knee" axis="0 1 0" range="-90 90" limited="true"/>
        <geom type="capsule" fromto="0 0 0 0 0 .3" size=".03" mass=".1"/></body></body></body></worldbody>
  <actuator><motor name="push" joint="slider" ctrlrange="-1 1"/></actuator>
  <sensor><jointpos name="place" joint="slider"/></sensor>
</mujoco>"""
STUDY = """
model = "robot.xml"
seconds = {seconds}
[cost.mine]
{cost}
"""
SQUARE = 'kind = "square"\nquantity = "joint/hinge/sine"'
SENSELESS = {
    "[start]\nposition = { hinge = 180 }": r"hinge = 180 rad is 28\.6 turns.*180 degrees are 3\.14159\. Give radians",
    "[start]\nposition = { knee = 45 }": r"knee = 45 is outside.*-1\.5708 to 1\.5708 rad; 45 degrees are 0\.785",
    "[start]\nposition = { slider = 25 }": r"slider = 25 is outside the joint's range, -1\.8 to 1\.8 m\. Give a number inside",
    "[explore]\nposition = { hinge = [-180, 180] }": r"\[explore.position\] hinge = -180 rad",
    "[explore]\nposition = { slider = [-1.8, 2.0] }": r"\[explore.position\] slider = 2 is outside",
    "[start]\nspread = -0.1": "spread = -0.1: expected a number from 0",
    "[start]\nposition = { hinge = nan }": "hinge = 3.14159",
    "[policy]\nnoise = 30": r"noise = 30 is a part of half an actuator's range.*'push'",
    "[policy]\ndelay = 4.0": "no action would ever act",
    "[training]\nhorizon = 5000": r"horizon = 5000 control steps is longer than an episode, which has 100 \(2 s of 0.02 s",
    "[policy]\nunits = 5": r'\[policy\] units changes nothing: a policy of kind "network" has no units',
    '[policy]\nkind = "linear"\nhidden = [3]': r"\[policy\] hidden changes nothing",
    "[policy]\nperiod = 0.5": "does not see the time. Give time_features",
    '[policy]\nobserve = ["place"]\nleave_out = ["slider"]': "sees sensors, not joints",
    "[policy]\nsee_design = true": "numbers to see",
    "[training]\ndesign_rate = 0.1": "no number of the mechanism to find",
    "[training]\nexplore = 0.4": "no .explore. table",
    "[explore]\nposition = { hinge = [0.0, 1.0] }\n[training]\nexplore = 0.0": "Give a share above 0",
}
MEANT = (
    "",
    "[start]\nposition = { hinge = 6.28318, slider = 1.8, knee = 1.5708 }\nspread = 0.3",
    '[start]\nposition = { slider = 9.0 }\nlift = "slider"',
    "[explore]\nposition = { hinge = [-6.28, 6.28] }\n[training]\nexplore = 0.4\nhorizon = 100",
    '[policy]\nkind = "gated"\nunits = 5\ntime_features = 2\nperiod = 0.5\nnoise = 1.0\nleave_out = ["slider"]',
)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "robot.xml").write_text(ROBOT)
    return tmp_path


def study(folder, more="", cost=SQUARE, seconds=2.0):
    (folder / "study.toml").write_text(STUDY.format(seconds=seconds, cost=cost) + more)
    return TrainStudy.read(folder / "study.toml")


@pytest.mark.parametrize("more", list(SENSELESS))
def test_what_cannot_be_meant_is_refused(folder, more):
    with pytest.raises(DsoError, match=SENSELESS[more]) as caught:
        refuse_senseless(study(folder, more), load(folder / "robot.xml"))
    assert "study.toml" in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("target", ["nan", "inf"])
def test_a_target_that_is_no_number_is_refused(folder, target):
    with pytest.raises(DsoError, match=f"target = {target}"):
        study(folder, cost=f"{SQUARE}\ntarget = {target}")


@pytest.mark.parametrize("more", MEANT)
def test_what_can_be_meant_is_not(folder, more):
    refuse_senseless(study(folder, more), load(folder / "robot.xml"))


def test_a_training_begins_with_it(folder):
    with pytest.raises(DsoError, match="Give radians"):
        build(study(folder, "[start]\nposition = { hinge = 180 }"))


FUNCTIONS = {
    "numpy_call": ("return np.sin(scene.state.qpos[0])", r"line 5 \(`return np.sin\(.*jax.numpy"),
    "branch": ("if scene.state.qpos[0] > 0:\n        return 1.0\n    return 0.0", r"line 5 \(`if scene.*jnp\.where\("),
    "loop": ("while scene.state.qpos[0] < 1:\n        pass\n    return 0.0", r"jnp\.where\("),
    "largest": ("return max(scene.state.qpos[0], scene.state.qpos[1])", r"`max`.*jnp\.maximum"),
    "plain": ("return float(scene.state.qpos[0]) ** 2", r"line 5 .*float\(\), int\(\)"),
    "index": ("return [1.0, 2.0][scene.state.qpos[0].astype(int)]", r"jnp\.take"),
    "attribute": ("return scene.qposition[0]", "the scene has no 'qposition'; it has .*'state'.*'kinematics'"),
    "inner": ("return scene.state.position[0]", "line 5 .*has no attribute 'position'"),
    "nothing": ("x = scene.state.qpos[0]", "returns nothing .None.; end it with `return`"),
    "vector": ("return scene.state.qpos", r"returns an array of shape \(3,\)"),
    "word": ("return 'small'", "returns str, not a number"),
    "raises": ("raise ValueError('not today')", r"line 5 .*fails: ValueError: not today\.$"),
    "constant": ("return 1.0", "the same in every state"),
    "out_of_range": ("return scene.state.qpos['x']", "line 5 .*string index"),
}


@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_mistakes_in_a_python_cost_are_told_in_a_paragraph(folder, name):
    body, told = FUNCTIONS[name]
    (folder / "mine.py").write_text(f"import numpy as np\nimport jax.numpy as jnp\n\ndef {name}(scene):\n    {body}\n")
    with pytest.raises(DsoError, match=told) as caught:
        build(study(folder, cost=f'kind = "python"\nfile = "mine.py"\nfunction = "{name}"'))
    text = str(caught.value)
    assert "study.toml" in text
    assert f"mine.py:{name}" in text or name == "constant"
    assert "[cost.mine]" in text
    assert "\n" not in text
    assert len(text) < 600


@pytest.mark.parametrize("arguments", ["", "scene, time", "scene, *, weight"])
def test_a_python_cost_takes_one_argument(folder, arguments):
    (folder / "mine.py").write_text(f"def cost({arguments}):\n    return 0.0\n")
    with pytest.raises(DsoError, match="is called with 1 argument"):
        build(study(folder, cost='kind = "python"\nfile = "mine.py"'))


@pytest.mark.parametrize(
    "body",
    [
        "scene.state.qpos[0] ** 2",
        "jnp.where(scene.state.qpos[0] > 0, scene.ctrl[0], 0.0)",
        "scene.sensors[0]",
        "scene.body_place(2)[2]",
        "scene.kinematics.xpos[2, 2]",
        "scene.task[0] * scene.state.time",
    ],
)
def test_a_good_python_cost_is_built(folder, body):
    (folder / "mine.py").write_text(
        f"import jax.numpy as jnp\n\ndef cost(scene, weight=2.0):\n    return weight * ({body})\n"
    )
    task = "[task.goal]\nvalues = [0.0, 1.0]\n"
    task = build(study(folder, task, cost='kind = "python"\nfile = "mine.py"'))
    assert task.rolls
    only = "kinematics" in body
    assert task.engine.name == ("mjx" if only else "mujoco")
    assert (task.engine.reason == "cost.mine reads what only MJX has") == only


STEPS = "jnp.where(jnp.abs(scene.state.qpos[0]) < 0.1, 0.0, 1.0)"


def stepping(folder, more="", body=STEPS):
    (folder / "mine.py").write_text(f"import jax.numpy as jnp\n\ndef cost(scene):\n    return {body}\n")
    return build(study(folder, more, cost='kind = "python"\nfile = "mine.py"'))


@pytest.mark.parametrize(
    "body", [STEPS, "jnp.floor(3.0 * scene.kinematics.xpos[2, 2])", "jnp.sign(scene.state.qvel[1])"]
)
def test_a_cost_that_only_steps_is_learned_from_its_values(folder, body):
    task = stepping(folder, body=body)
    assert task.choice.name == task.windows.method == "sac"
    assert "cost.mine steps" in task.choice.reason


@pytest.mark.parametrize(
    "body",
    ["jnp.where(scene.state.qpos[0] > 0, scene.state.qvel[0], 0.0)", "jnp.clip(scene.kinematics.xpos[2, 2], 0.0, 0.2)"],
)
def test_a_cost_with_a_slope_somewhere_is_differentiated(folder, body):
    task = stepping(folder, body=body)
    assert task.choice.name == "pathwise"
    assert not task.notes


@pytest.mark.parametrize(
    "more",
    [
        '[training]\nmethod = "pathwise"',
        '[cost.too]\nkind = "square"\nquantity = "joint/hinge/sine"',
        '[design.push]\nkind = "gear"\nof = "push"',
        '[policy]\nkind = "linear"\nlearn_noise = true',
    ],
)
def test_else_a_cost_that_only_steps_is_named(folder, more):
    task = stepping(folder, more)
    assert task.choice.name == "pathwise"
    (told,) = (note for note in task.notes if "cost.mine" in note)
    assert "derivative is zero" in told
    assert "Let it grow with the distance" in told
    # Only a study that `sac` suits is sent there.
    assert ("method = 'sac'" in told) == ("[design" not in more and "learn_noise" not in more)


def test_a_cost_of_the_action_is_no_goal(folder):
    assert stepping(folder, '[cost.effort]\nkind = "control"').choice.name == "sac"
