"""Policies of every kind with random numbers, for tests of what plays them elsewhere."""

import dataclasses

import numpy as np

from dso_robotics.robot.policy_numbers import PolicyNumbers

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
    "slow": {"kind": "network", "hidden": (6,), "delay": 2, "step": (0.05, 0.2)},
    "sensors": {"kind": "network", "hidden": (4,), **SENSORS, "tasks": ("goal",)},
}


def numbers(
    kind,
    columns=(),
    labels=STATE["labels"],
    tasks=(),
    delay=0,
    features=0,
    cyclic=False,
    hidden=(),
    units=3,
    step=(np.inf, np.inf),
):
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
        "shift": np.array([-0.4, 0.3]),
        "gain": np.array([1.3, 0.7]),
        "step": np.array(step),
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
