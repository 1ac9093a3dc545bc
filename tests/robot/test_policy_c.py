"""A policy as C code decides as in Python: all kinds, 1,000 control steps with memory, delay, tasks and features of the time."""

import dataclasses

import numpy as np
import pytest

from dso_robotics.robot.deployed_policy import Policy
from dso_robotics.robot.policy_c import policy_header
from dso_robotics.robot.policy_numbers import PolicyNumbers
from tests.robot.c_program import run

STATE = {
    "plain": (0, 2),
    "turning": (1,),
    "labels": ("x", "z", "sin hinge", "cos hinge", "x velocity", "hinge velocity", "z velocity", "activation 0"),
}
SENSORS = {"columns": (3, 0, 5), "labels": ('force "of" me? \\', "*/ tip[0]", "Größe")}
KINDS = {
    "linear": {"kind": "linear"},
    "network": {"kind": "network", "hidden": (7, 5)},
    "wide": {"kind": "network", "hidden": (30,), "delay": 1},
    "brain": {"kind": "brain", "units": 4, "delay": 3},
    "gated": {"kind": "gated", "units": 5, "features": 3},
    "waves": {"kind": "linear", "features": 2, "cyclic": True, "tasks": ("goal", "speed")},
    "sensors": {"kind": "network", "hidden": (4,), **SENSORS, "tasks": ("goal",)},
}


def numbers(kind, columns=(), labels=STATE["labels"], tasks=(), delay=0, features=0, cyclic=False, hidden=(), units=3):
    """A policy with random numbers, for a model of 3 positions, 3 velocities, an activation and 2 controls."""
    rng, seen = np.random.default_rng(7), len(labels) + len(tasks)
    blank = PolicyNumbers.__new__(PolicyNumbers)
    given = {
        "kind": kind,
        "hidden": hidden,
        "units": units,
        "features": features,
        "clock": 0.7,
        "cyclic": cyclic,
        "mean": rng.normal(size=seen),
        "spread": rng.uniform(0.5, 2.0, seen),
        "plain": () if columns else STATE["plain"],
        "turning": () if columns else STATE["turning"],
        "columns": columns,
        "labels": labels,
        "tasks": tasks,
        "task_low": -np.arange(1.0, 1.0 + len(tasks)),
        "task_high": np.arange(0.0, len(tasks)) - 1.0,
        "task_first": np.full(len(tasks), -0.9),
        "ctrl_names": ("push", "free"),
        "middle": np.array([0.7, 0.0]),
        "half": np.array([1.1, 1.0]),
        "limited": np.array([True, False]),
        "period": 0.02,
        "delay": delay,
        "nq": 3,
        "nv": 3,
        "na": 1,
        "on_estimate": False,
    }
    names = {field.name for field in dataclasses.fields(PolicyNumbers)}
    assert set(given) == names - {"weights"}, "a new number needs a place in the exports"
    for name, value in given.items():
        object.__setattr__(blank, name, value)
    wanted = sum(int(np.prod(shape)) for shape in blank.shapes)
    return PolicyNumbers(**given, weights=rng.normal(size=wanted) * 0.5)


MAIN = """
#include <stdio.h>
#include "policy.h"
int main(void) {
  double in[TAKEN + DSO_POLICY_SIZE(DSO_POLICY_TASKS)], seen[DSO_POLICY_SEEN], ctrl[DSO_POLICY_NU];
  dso_policy policy;
  int i, first = 1;
  while (fread(in, sizeof in, 1, stdin) == 1) {
    if (first) dso_policy_reset(&policy, DSO_POLICY_TASKS ? in + TAKEN : NULL);
    first = 0;
    OBSERVE
    if (dso_policy_act(&policy, seen, ctrl) != DSO_POLICY_OK) return 1;
    fwrite(ctrl, sizeof ctrl, 1, stdout);
    seen[0] = NAN;
    if (dso_policy_act(&policy, seen, ctrl) != DSO_POLICY_NOT_FINITE) return 1;
    (void)i;
  }
  return 0;
}
"""


@pytest.mark.parametrize("name", list(KINDS))
def test_a_thousand_steps_are_those_of_python(tmp_path, name):
    n = numbers(**KINDS[name])
    (tmp_path / "policy.h").write_text(policy_header(n, source="a test */ of"))
    policy, rng, taken = Policy(n), np.random.default_rng(5), 3 if n.columns else 7
    task = rng.uniform(-1, 1, len(n.tasks))
    policy.reset(dict(zip(n.tasks, task, strict=True)))
    given = rng.normal(size=(1000, taken)) * 2
    observe = (
        "for (i = 0; i < TAKEN; i++) seen[i] = in[i];" if n.columns else "dso_policy_observe(in, in + 3, in + 6, seen);"
    )
    code = MAIN.replace("OBSERVE", observe).replace("TAKEN", str(taken))
    rows = np.concatenate([given, np.tile(np.r_[task, [0.0] * (not n.tasks)], (1000, 1))], 1)
    found = run(tmp_path, code, rows, 2)
    if n.columns:
        expected = [policy.act(sensors=row) for row in given]
    else:
        expected = [policy.act(qpos=row[:3], qvel=row[3:6], act=row[6:]) for row in given]
    assert found.shape == (1000, 2)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    assert np.std(found, axis=0).min() > 1e-3
