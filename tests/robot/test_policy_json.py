"""A runner written from docs/deployment.md alone, in NumPy, decides as the policy does that was exported."""

import json

import numpy as np
import pytest

from dso_robotics.robot.deployed_policy import Policy
from dso_robotics.robot.policy_json import policy_json
from tests.robot.policies import KINDS, numbers


def act(table, given, memory, task, time):
    """The action before squashing and the next memory, from the content of the file alone."""
    seen = table["observation"]
    functions = {"none": lambda value: value, "sin": np.sin, "cos": np.cos}
    x = np.array([functions[e["function"]](given[e["from"]][e["index"]]) for e in seen["entries"]])
    parts = [(x - seen["mean"]) / seen["spread"]]
    for number, value in zip(table["tasks"], task, strict=True):
        half = (number["high"] - number["low"]) / 2 or 1.0
        normal = (value - (number["high"] + number["low"]) / 2) / half
        parts.append(np.array([(normal - number["mean"]) / number["spread"]]))
    if (clock := table["time"]) is not None:
        k = np.arange(clock["features"])
        if clock["kind"] == "waves":
            phase = 2 * np.pi * time / clock["clock"] * (k + 1)
            parts += [np.sin(phase), np.cos(phase)]
        else:
            parts.append(np.exp(-0.5 * (time * clock["features"] / clock["clock"] - k - 0.5) ** 2))
    x, net = np.concatenate(parts), table["network"]
    if "layers" in net:
        for layer in net["layers"]:
            x = np.array(layer["weight"]) @ x + layer["bias"]
            x = np.tanh(x) if layer["activation"] == "tanh" else x
        return x, memory

    def units(part):
        return np.array(part["input"]) @ x + np.array(part["recurrent"]) @ memory + part["bias"]

    new = np.tanh(units(net["units"]))
    if "gate" in net:
        gate = 1 / (1 + np.exp(-units(net["gate"])))
        new = (1 - gate) * memory + gate * new
    out = net["output"]
    return np.array(out["memory"]) @ new + np.array(out["input"]) @ x + out["bias"], new


@pytest.mark.parametrize("name", list(KINDS))
def test_a_runner_of_the_file_decides_as_the_policy(name):
    n = numbers(**KINDS[name])
    policy, table = Policy(n), json.loads(policy_json(n, source="a test"))
    control, rng = table["control"], np.random.default_rng(5)
    task = rng.uniform(-1, 1, len(n.tasks))
    policy.reset(dict(zip(n.tasks, task, strict=True)))
    before = np.array(control["home"])
    memory, queue = np.zeros(table["memory"]), [np.zeros(len(control["names"]))] * control["delay_steps"]
    for step in range(30):
        arrays = {"qpos": rng.normal(size=3), "qvel": rng.normal(size=3), "act": rng.normal(size=1)}
        arrays["sensordata"] = rng.normal(size=6)
        seen = (
            arrays["sensordata"][[entry["index"] for entry in table["observation"]["entries"]]] if n.columns else None
        )
        state = {} if n.columns else {name: arrays[name] for name in ("qpos", "qvel", "act")}
        expected = policy.act(sensors=seen, **state)
        action, memory = act(table, arrays, memory, task, step * control["period"])
        played, *queue = [*queue, action]
        z = np.array(control["shift"]) + np.array(control["gain"]) * played
        squashed = np.array(control["offset"]) + np.array(control["scale"]) * np.tanh(z)
        ctrl = np.where(np.array(control["squash"]) == "tanh", squashed, z)
        most = np.array([np.inf if step is None else step for step in control["step"]])
        ctrl = before = before + np.clip(ctrl - before, -most, most)
        np.testing.assert_allclose(ctrl, expected, rtol=1e-12, atol=1e-12)
    assert [entry["name"] for entry in table["observation"]["entries"]] == list(n.labels)
