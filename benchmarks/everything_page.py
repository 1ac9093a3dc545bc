"""Writes docs/everything.md from benchmarks/results/everything.json."""

from typing import Any

import numpy as np

_HEAD = """# Everything in one vector

A robot is not what its model says. There is one log of its sensors, three recordings of 6 s, and nothing recorded its
state. Wanted is a policy for the true robot that acts on its true sensors. One training finds physics, sensor biases, the
corrector of an estimator and the policy together. This page compares that with the usual pipeline, with one part frozen, and
with a policy that was trained on the true model and sees the true state. Made by `python benchmarks/everything.py` for each
robot and seed; benchmarks/results/everything.json has the commands.

Costs are means over twenty episodes on the true robot, the same for all variants: the same starts and the same noise of
sensors. Each seed has a log and a training of its own. The last column is (C of the untrained policy - C) / (C of the untrained
policy - C of the oracle), of the medians over the seeds; the oracle's training is an ordinary one of as many iterations, so
another can do better. CPU time, of all cores, includes compilation; what an earlier seed compiled was kept where it was the
same. Other work was done on the machine meanwhile.
"""
_ROBOTS = {
    "cartpole": """
## Cart-pole

`examples/studies/everything.toml`: the drive has 6 instead of 10 N per unit, the pole 0.2 instead of 0.1 kg, there is more
friction, and the sensors of the pole's angle and rate have a bias. The policy is to balance the pole in the middle of the rail.
An episode costs 300 less the return. dso {dso}, MuJoCo {mujoco}, JAX {jax}, Python {python}.
""",
    "arm": """
## Arm

`examples/studies/everything_arm.toml`: the motors have 6.5 and 3.5 instead of 10 and 5 N m per unit, the payload 0.35 instead
of 0.2 kg, there is more friction, and the elbow's encoder and tachometer have a bias. The policy is to bring the hand to a
place and hold it there. dso {dso}, MuJoCo {mujoco}, JAX {jax}, Python {python}.
""",
}
_COLUMNS = """
| variant | seeds | median cost | least | most | median CPU time [s] | of what the oracle gains |
| --- | --- | --- | --- | --- | --- | --- |
"""
_TEXT = {
    "joint": "joint: all in one training",
    "pipeline": "pipeline: identify, tune the filter by likelihood, train with the state",
    "frozen_physics": "joint, physics kept as the model says",
    "frozen_sensors": "joint, sensors taken to be unbiased",
    "frozen_corrector": "joint, the estimator's first gain kept",
    "oracle": "oracle: true model, true state",
}


def page(found: dict[str, Any], truths: dict[str, dict[str, float]]) -> str:
    """The page as Markdown. truths: the true numbers of every robot, by path."""
    text = _HEAD
    for robot, told in _ROBOTS.items():
        if robot in found:
            rows = dict(sorted(found[robot]["rows"].items()))
            text += told.format(**found[robot]["machine"]) + _table(rows) + _found(rows, truths[robot])
    return text


def _table(rows: dict[str, Any]) -> str:
    of = {name: {s: float(np.mean(r[name]["costs"])) for s, r in rows.items() if name in r} for name in _TEXT}
    start = {s: float(np.mean(r["joint"]["untrained"])) for s, r in rows.items() if "joint" in r}
    high, low = np.median([*start.values()]), np.median([*of["oracle"].values()])
    text = _COLUMNS
    for name, told in _TEXT.items():
        if not of[name]:
            continue
        values = np.array([*of[name].values()])
        times = [rows[s][name]["cpu"] for s in of[name]]
        share = (high - np.median(values)) / (high - low)
        text += (
            f"| {told} | {len(values)} | {np.median(values):.1f} | {values.min():.1f} | {values.max():.1f} | "
            f"{np.median(times):.0f} | {share:.3f} |\n"
        )
    text += f"| untrained | {len(start)} | {high:.1f} | {min(start.values()):.1f} | {max(start.values()):.1f} | | 0 |\n"
    shares = {s: (start[s] - of["joint"][s]) / (start[s] - of["oracle"][s]) for s in of["joint"] if s in of["oracle"]}
    told = ", ".join(f"{share:.3f}" for share in shares.values())
    more = np.median([*of["joint"].values()]) - np.median([*of["pipeline"].values()])
    both = of["joint"].keys() & of["pipeline"].keys()
    lower = sum(of["joint"][seed] < of["pipeline"][seed] for seed in both)
    return text + (
        f"\nSeed by seed, the joint training has {told} of what the oracle gains. Its median cost is {abs(more):.1f} "
        f"{'above' if more > 0 else 'below'} the pipeline's, and it is the lower of the two in {lower} of {len(both)} seeds.\n"
    )


def _found(rows: dict[str, Any], truth: dict[str, float]) -> str:
    """What both found of the true numbers."""
    text = (
        "\nWhat was found, medians over the seeds:\n\n| number | true | joint | pipeline |\n| --- | --- | --- | --- |\n"
    )
    for path in next(iter(rows.values()))["joint"]["parameters"]:
        found = [
            np.median([r[name]["parameters"][path] for r in rows.values() if name in r])
            for name in ("joint", "pipeline")
        ]
        text += f"| `{path}` | {truth[path]:.4g} | {found[0]:.4g} | {found[1]:.4g} |\n"
    return text
