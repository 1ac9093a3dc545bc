"""A policy at run time decides as the chain does that it was trained in, for every kind of policy, and loads no JAX."""

import json
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from dso_robotics.data.run_file import read_run, write_run
from dso_robotics.errors import DsoError
from dso_robotics.robot.deployed_policy import Policy
from dso_robotics.robot.observation import Scaling
from dso_robotics.studies.train_build import build
from dso_robotics.studies.train_study import TrainStudy

MODEL = """<mujoco model="cart">
  <option timestep="0.01"><flag contact="disable"/></option>
  <worldbody><body name="cart">
    <joint name="x" type="slide" axis="1 0 0" damping="0.1" range="-3 3" limited="true"/>
    <geom type="box" size="0.1 0.1 0.1" mass="1"/>
    <body name="pole"><joint name="hinge" axis="0 1 0"/><geom type="capsule" fromto="0 0 0 0 0 .5" size=".02" mass=".1"/>
    <site name="tip" pos="0 0 .5"/></body>
  </body></worldbody>
  <actuator><motor name="push" joint="x" ctrlrange="-0.333333333333 1.7"/><motor name="free" joint="hinge"/></actuator>
  <sensor><jointpos name="place" joint="x"/><framepos name="tip" objtype="site" objname="tip"/>
    <actuatorfrc name="force" actuator="push"/></sensor>
</mujoco>"""
KINDS = {
    "linear": {"kind": "linear"},
    "network": {"kind": "network", "hidden": [7, 5]},
    "left out": {"kind": "network", "leave_out": ["x"]},
    "brain": {"kind": "brain", "units": 4},
    "gated": {"kind": "gated", "units": 4},
    "bumps": {"kind": "linear", "time_features": 3},
    "waves": {"kind": "gated", "units": 3, "time_features": 2, "period": 0.7},
    "late": {"kind": "linear", "delay": 0.04},
    "sensors": {"kind": "network", "observe": ["tip", "force", "place"]},
    "tasks": {"kind": "brain", "units": 2},
    "slow": {"kind": "network", "hidden": [4], "delay": 0.02},
}
SLOW = {"home": {"free": 0.3}, "scale": {"push": 0.5}, "rate": {"*": 5.0}, "noise": "after"}


def trained(folder, policy, task=None, action=None):
    """A finished run of `dso train` with random numbers, its task as built, and theta and scaling."""
    (folder / "model.xml").write_text(MODEL)
    study = TrainStudy(
        str(folder / "model.xml"),
        {"effort": {"kind": "control"}},
        policy=policy,
        control_step=0.02,
        task=task or {},
        action=action or {},
    )
    ready, rng = build(study), np.random.default_rng(3)
    theta = rng.normal(size=ready.chain.layout.size)
    size = ready.chain.scaling.mean.shape[0]
    scaling = Scaling(jnp.asarray(rng.normal(size=size)), jnp.asarray(rng.uniform(0.1, 2.0, size)), jnp.asarray(1.0))
    tree = {
        "status": "finished",
        "action": ready.chain.squash.as_dict(),
        "learner": {"theta": theta},
        "theta": {k: np.asarray(v) for k, v in ready.chain.layout.split(theta).items()},
        "scaling": {"mean": np.asarray(scaling.mean), "spread": np.asarray(scaling.spread)},
    }
    write_run(folder / "run.h5", tree, json.loads(json.dumps(study.as_dict())), MODEL)
    return ready, theta, scaling


@pytest.mark.parametrize("name", list(KINDS))
def test_it_decides_as_the_chain_does(tmp_path, name):
    tasks = {"goal": {"values": [0.5, -1.0]}, "speed": {"low": 1.0, "high": 3.0}} if name == "tasks" else None
    ready, theta, scaling = trained(tmp_path, KINDS[name], tasks, SLOW if name == "slow" else None)
    chain = eqx.tree_at(lambda c: c.scaling, ready.chain, scaling)
    policy = Policy.load(tmp_path)
    if name == "tasks":
        policy.reset(task={"speed": 2.5})
    assert policy.period == 0.02
    again = Policy.load(policy.save(tmp_path / "kept"))
    if name == "tasks":
        again.reset(task={"speed": 2.5})
    vector, rng = jnp.asarray(theta), np.random.default_rng(5)
    decide = jax.jit(lambda s: chain.act(chain.watched(s, vector), vector))
    state = chain.rest()
    context = jnp.asarray([0.5, 2.5]) if name == "tasks" else state.context
    for step in range(6):
        qpos, qvel, now = rng.normal(size=2), rng.normal(size=2), 0.02 * step
        places = lambda s: (s.body.qpos, s.body.qvel, s.body.time, s.context)  # noqa: E731
        state = eqx.tree_at(places, state, (jnp.asarray(qpos), jnp.asarray(qvel), jnp.asarray(now), context))
        action, memory = decide(state)
        expected = np.asarray(chain.control(action, state))
        queue = jnp.concatenate([state.queue, action[None]])[1:]
        np.testing.assert_allclose(policy.act(qpos=qpos, qvel=qvel), expected, atol=1e-12, rtol=1e-12)
        np.testing.assert_allclose(again.act(qpos=qpos, qvel=qvel, time=now), expected, atol=1e-12, rtol=1e-12)
        moved = action, memory, queue, jnp.asarray(expected)
        state = eqx.tree_at(lambda s: (s.action, s.memory, s.queue, s.ctrl), state, moved)
    assert np.abs(expected).max() > 1e-3


def test_readings_take_the_place_of_the_model(tmp_path):
    trained(tmp_path, KINDS["sensors"])
    by_state, by_name, in_order = (Policy.load(tmp_path) for _ in range(3))
    assert by_state.sees == ("tip[0]", "tip[1]", "tip[2]", "force", "place")
    model = mujoco.MjModel.from_xml_string(MODEL)
    data = mujoco.MjData(model)
    data.qpos[:] = 0.3, 0.2
    mujoco.mj_forward(model, data)
    reading = np.r_[data.sensordata[1:4], data.sensordata[4], data.sensordata[0]]
    control = by_state.act(data)
    np.testing.assert_allclose(in_order.act(sensors=reading), control, rtol=1e-12)
    np.testing.assert_allclose(by_name.act(sensors=dict(zip(by_name.sees, reading, strict=True))), control, rtol=1e-12)
    with pytest.raises(DsoError, match="'force' is missing"):
        by_name.act(sensors={n: 0.0 for n in by_name.sees if n != "force"})
    with pytest.raises(DsoError, match=r"sees no 'farce'.*'force'"):
        by_name.act(sensors={"farce": 0.0})


@pytest.mark.parametrize(
    ("cut", "in_its_place"),
    [
        ('<jointpos name="place" joint="x"/>', ""),
        ('<joint name="hinge" axis="0 1 0"/>', '<joint name="hinge" type="ball"/>'),
    ],
)
def test_a_model_that_is_not_the_policys_own_is_refused(tmp_path, cut, in_its_place):
    trained(tmp_path, KINDS["sensors"])
    tree, study, mjcf = read_run(Policy.load(tmp_path).save(tmp_path / "kept"))
    assert cut in mjcf
    other = mjcf.replace(cut, in_its_place).replace('<motor name="free" joint="hinge"/>', "")
    write_run(tmp_path / "kept" / "policy.h5", tree, study, other)
    with pytest.raises(DsoError, match="another state or other sensors"):
        Policy.load(tmp_path / "kept").act(qpos=[0.0, 0.0])


def test_what_is_wrong_is_said_and_changes_nothing(tmp_path):
    trained(tmp_path, KINDS["gated"])
    policy, other = Policy.load(tmp_path), Policy.load(tmp_path)
    with pytest.raises(DsoError, match=r"qpos has shape \(3,\)"):
        policy.act(qpos=[0.0, 0.0, 0.0])
    with pytest.raises(DsoError, match="qvel holds nan"):
        policy.act(qpos=[0.0, 0.0], qvel=[np.nan, 0.0])
    with pytest.raises(DsoError, match="nothing to see"):
        policy.act()
    with pytest.raises(DsoError, match="trained for one task"):
        policy.reset(task={"goal": 1.0})
    np.testing.assert_array_equal(policy.act(qpos=[1.0, 0.0]), other.act(qpos=[1.0, 0.0]))
    second = policy.act(qpos=[1.0, 0.0])
    policy.reset()
    assert np.any(policy.act(qpos=[1.0, 0.0]) != second)


def test_folders_without_a_policy_are_refused_by_name(tmp_path):
    with pytest.raises(DsoError, match="no trained policy here"):
        Policy.load(tmp_path)
    (tmp_path / "run.h5").write_bytes(b"nothing")
    with pytest.raises(DsoError, match="damaged"):
        Policy.load(tmp_path)
    trained(tmp_path, KINDS["linear"])
    ready = TrainStudy(
        str(tmp_path / "model.xml"), {"a": {"kind": "control"}}, policy={"see_design": True}, free=("x",)
    )
    write_run(
        tmp_path / "run.h5",
        {"status": "finished", "learner": {"x": 0}, "theta": {"policy": np.zeros(3)}},
        json.loads(json.dumps(ready.as_dict())),
        MODEL,
    )
    with pytest.raises(DsoError, match="see_design"):
        Policy.load(tmp_path)


def test_it_loads_and_acts_without_jax(tmp_path):
    trained(tmp_path, KINDS["sensors"])
    code = (
        "import sys, dso_robotics as dso; p = dso.Policy.load(sys.argv[1]); p.act(qpos=[0.1, 0.2]); "
        "assert 'jax' not in sys.modules and 'equinox' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
