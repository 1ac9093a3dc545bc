"""Writes docs/everything.md from benchmarks/results/everything.json."""

from typing import Any

import numpy as np

_HEAD = """# Everything in one vector

A cart-pole has a weaker drive (6 instead of 10 N per unit) and a heavier pole (0.2 instead of 0.1 kg) than its model
says, more friction, and two biased, noisy sensors. There is one log of its sensors: three recordings of 6 s. Wanted
is a policy that balances the true robot from its true sensors. `examples/studies/everything.toml` finds physics,
sensor biases, the corrector of an estimator and the policy in one training. This page compares that with the usual
pipeline, with one part frozen, and with a policy that was trained on the true model and sees the true state. Made by
`{command}` with dso {dso}, MuJoCo {mujoco}, JAX {jax}, Python {python}.

Returns are means over ten episodes on the true robot, with its noise; 300 is the most. Each seed has a log, a
training and noise of its own. Two trainings ran at a time, on two cores. The last column is (R - R of the untrained
policy) / (R of the oracle - R of the untrained policy), of the medians.

| variant | seeds | median return | least | most | median time [s] | of what the oracle gains |
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


def page(found: dict[str, Any]) -> str:
    """The page as Markdown."""
    rows = dict(sorted(found["rows"].items()))
    text = _HEAD.format(command=found["command"], **found["machine"])
    of = {name: {s: float(np.mean(r[name]["returns"])) for s, r in rows.items() if name in r} for name in _TEXT}
    start = {s: float(np.mean(r["joint"]["untrained"])) for s, r in rows.items() if "joint" in r}
    low, high = np.median([*start.values()]), np.median([*of["oracle"].values()])
    for name, told in _TEXT.items():
        if not of[name]:
            continue
        values = np.array([*of[name].values()])
        times = [rows[s][name]["seconds"]["total"] for s in of[name]]
        share = (np.median(values) - low) / (high - low)
        text += (
            f"| {told} | {len(values)} | {np.median(values):.1f} | {values.min():.1f} | {values.max():.1f} | "
            f"{np.median(times):.0f} | {share:.3f} |\n"
        )
    text += f"| untrained | {len(start)} | {low:.1f} | {min(start.values()):.1f} | {max(start.values()):.1f} | | 0 |\n"
    shares = {s: (of["joint"][s] - start[s]) / (of["oracle"][s] - start[s]) for s in of["joint"] if s in of["oracle"]}
    told = ", ".join(f"{share:.3f}" for share in shares.values())
    better = np.median([*of["joint"].values()]) - np.median([*of["pipeline"].values()])
    verdict = "above" if better >= 0 else "below"
    text += (
        f"\nSeed by seed, the joint training has {told} of what the oracle gains. Its median return is {abs(better):.1f} "
        f"{verdict} the pipeline's.\n"
    )
    if better < 0:
        text += "Here the pipeline wins: it trains its policy with the true state, which is an easier training.\n"
    return text + _found(rows)


def _found(rows: dict[str, Any]) -> str:
    """What both found of the true numbers."""
    truth = {
        "actuator/drive/gear[0]": 6.0,
        "body/pole/mass": 0.2,
        "body/pole/diaginertia[0]+body/pole/diaginertia[1]": 0.01885,
        "joint/slider/damping": 0.4,
        "joint/hinge/damping": 0.02,
        "sensor/pole_angle/bias": 0.06,
        "sensor/pole_rate/bias": -0.15,
    }
    text = "\n## What was found\n\nMedians over the seeds.\n\n| number | true | joint | pipeline |\n| --- | --- | --- | --- |\n"
    for path, value in truth.items():
        found = [
            np.median([r[name]["parameters"][path] for r in rows.values() if name in r])
            for name in ("joint", "pipeline")
        ]
        text += f"| `{path}` | {value:g} | {found[0]:.4g} | {found[1]:.4g} |\n"
    return text
