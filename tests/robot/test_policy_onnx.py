"""A policy as ONNX decides in onnxruntime as in Python, in 64 bits to 1e-12."""

import json

import numpy as np
import pytest

from dso_robotics.robot.deployed_policy import Policy
from dso_robotics.robot.policy_onnx import OPSET, policy_onnx, rounding
from tests.robot.policies import KINDS, numbers

onnx = pytest.importorskip("onnx", reason="the package onnx is not installed")


def steps(model, n, *, count, kind, robots=2):
    """Controls (count, nu) of onnxruntime and of the policy for the second of two robots; the other sees something else."""
    ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    policy, rng = Policy(n), np.random.default_rng(5)
    task = rng.uniform(-1, 1, len(n.tasks))
    policy.reset(dict(zip(n.tasks, task, strict=True)))
    sizes = {i.name: i.shape[1:] for i in session.get_inputs()}
    held = {name: np.zeros((robots, *sizes[name]), kind) for name in ("memory", "queue") if name in sizes}
    held |= {"before": np.tile(n.home, (robots, 1)).astype(kind)} if "before" in sizes else {}
    found, expected = [], []
    for step in range(count):
        given = {
            name: rng.normal(size=(robots, *sizes[name]))
            for name in ("qpos", "qvel", "act", "sensors")
            if name in sizes
        }
        more = {"task": np.tile(task, (robots, 1)), "time": np.full((robots, 1), step * n.period)}
        feed = {name: np.asarray(v, kind) for name, v in (given | more).items() if name in sizes}
        out = dict(zip([o.name for o in session.get_outputs()], session.run(None, feed | held), strict=True))
        held = {name: out[f"next_{name}"] for name in held}
        found.append(out["ctrl"][1])
        expected.append(policy.act(**{name: value[1] for name, value in given.items()}))
    return np.array(found), np.array(expected)


@pytest.mark.parametrize("name", list(KINDS))
def test_a_thousand_steps_are_those_of_python(name):
    n = numbers(**KINDS[name])
    found, expected = steps(policy_onnx(n, source="a test"), n, count=1000, kind=np.float64)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    assert np.std(found, axis=0).min() > 1e-3


@pytest.mark.parametrize("name", ["gated", "waves", "sensors", "brain"])
def test_the_error_of_32_bits_is_as_told(name):
    n = numbers(**KINDS[name])
    model = policy_onnx(n, source="a test", precision="float32")
    told = rounding(n, model)
    assert 1e-9 < told < 1e-4
    found, expected = steps(model, n, count=100, kind=np.float32)
    assert np.abs((found - expected) / n.half).max() < 10 * told
    assert rounding(n, policy_onnx(n, source="a test")) < 1e-12


def test_names_and_period_are_in_the_metadata():
    n = numbers(**KINDS["brain"])
    model = onnx.load_from_string(policy_onnx(n, source="here"))
    held = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert held["control"]["period"] == 0.02
    assert held["control"]["names"] == ["push", "free"]
    assert [entry["name"] for entry in held["observation"]["entries"]] == list(n.labels)
    assert model.opset_import[0].version == OPSET
    assert [i.name for i in model.graph.input] == ["qpos", "qvel", "act", "memory", "queue"]
    assert [o.name for o in model.graph.output] == ["ctrl", "next_memory", "next_queue"]
