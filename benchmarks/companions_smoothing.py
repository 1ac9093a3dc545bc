"""Randomised smoothing through contact on C MuJoCo: when first order fails, when zeroth order does, and a mixture of both.

Run: python benchmarks/companions_smoothing.py [--out benchmarks/results]
It writes companions_smoothing.json and companions_smoothing.png.

Four tasks with one number to choose: the angle of a throw over a wall, the speed of a hand that pushes a ball, the force on a
box with dry friction, and the push that tips a plank about its edge. The gradient of the smoothed cost E[f(u + w)] is estimated
from 100 samples, 25 times. The truth is zeroth order on 20,000 rollouts. The mixture weights both orders by inverse variance,
from provenance import begun
with weights from other samples.
"""

import argparse
import json
import pathlib
import time

import jax
import jax.numpy as jnp
import matplotlib as mpl
import mujoco
import mujoco.rollout
import numpy as np

from dso_robotics.core.gradient.mixed import combine
from dso_robotics.core.gradient.smoothing import differenced, first_order, zeroth_order

mpl.use("Agg")
import matplotlib.pyplot as plt

HEAD = '<mujoco><option timestep="0.005" integrator="implicitfast"/><worldbody>'
BALL = (
    HEAD
    + """
  <geom type="plane" size="9 9 1"/><geom type="box" pos="1.5 0 0.4" size="0.05 1 0.4"/>
  <body pos="0 0 0.1"><joint type="slide" axis="1 0 0" damping="0.02"/><joint type="slide" axis="0 0 1"/>
    <geom type="sphere" size="0.05" mass="1" condim="1"/></body></worldbody></mujoco>"""
)
PUSH = (
    HEAD
    + """
  <body><joint type="slide" axis="1 0 0"/><geom type="sphere" size="0.1" mass="1" solref="0.01 1"/></body>
  <body pos="0.6 0 0"><joint type="slide" axis="1 0 0" damping="1"/>
    <geom type="sphere" size="0.1" mass="0.5" solref="0.01 1"/></body>
  </worldbody></mujoco>"""
)
FRICTION = (
    HEAD
    + """
  <body><joint name="s" type="slide" axis="1 0 0" frictionloss="3" damping="2"/>
    <geom type="box" size="0.1 0.1 0.1" mass="1"/></body>
  </worldbody><actuator><motor joint="s"/></actuator></mujoco>"""
)
PIVOT = (
    HEAD
    + """
  <geom type="plane" size="9 9 1" friction="2"/>
  <body pos="0 0 0.5"><joint type="slide" axis="1 0 0"/><joint type="slide" axis="0 0 1"/>
    <joint type="hinge" axis="0 1 0" damping="0.02"/>
    <geom type="box" size="0.1 0.3 0.5" mass="1" friction="2"/></body></worldbody></mujoco>"""
)


def throw(u):
    return np.stack([np.zeros_like(u), np.zeros_like(u), 6 * np.cos(u), 6 * np.sin(u)], 1)


def speeds(joints, moved):
    """Start at rest but for the speed of one joint."""

    def start(u):
        state = np.zeros((len(u), 2 * joints))
        state[:, joints + moved] = u
        return state

    return start


# Name -> model, inputs (N,) to start [qpos, qvel], is the input a control, cost at the end, steps, sigma, inputs to judge at.
TASKS = {
    "ball over a wall": (BALL, throw, False, lambda q: -np.minimum(q[:, 0], 4.0), 300, 0.1, (0.5, 0.7, 0.9)),
    "push": (PUSH, speeds(2, 0), False, lambda q: (q[:, 1] - 0.5) ** 2, 300, 0.2, (0.0, 0.4, 1.2)),
    "friction": (FRICTION, speeds(1, 0), True, lambda q: (q[:, 0] - 0.5) ** 2, 200, 0.5, (2.0, 3.0, 4.0)),
    "pivot": (PIVOT, speeds(3, 2), False, lambda q: (np.abs(q[:, 2]) - np.pi / 2) ** 2, 300, 0.3, (2.0, 2.7, 3.0)),
}
KINDS = ("first", "zeroth", "mixture")
COUNT, REPEATS, MANY = 100, 25, 20_000


class Task:
    def __init__(self, xml, start, driven, cost, steps):
        self.model = mujoco.MjModel.from_xml_string(xml)
        self.data = [mujoco.MjData(self.model)]
        self.start, self.driven, self.cost, self.steps = start, driven, cost, steps
        self.rollouts = 0

    def __call__(self, points):
        u, nq = np.asarray(points)[:, 0], self.model.nq
        initial = np.concatenate([np.zeros((len(u), 1)), (self.start(0 * u) if self.driven else self.start(u))], axis=1)
        control = np.repeat(u[:, None, None], self.steps, 1) if self.driven else None
        found = []
        for part in range(0, len(u), 2000):
            here = slice(part, part + 2000)
            states, _ = mujoco.rollout.rollout(
                self.model, self.data, initial[here], control[here] if self.driven else None, nstep=self.steps
            )
            found.append(self.cost(states[:, -1, 1 : 1 + nq]))
        self.rollouts += len(u)
        return np.concatenate(found)


def judged(task, u, sigma):
    """Truth, and mean and standard deviation of 25 estimates, by estimator."""
    x, slopes = jnp.array([u]), differenced(task, step=1e-5)
    truth = zeroth_order(jax.random.key(9), task, x, sigma=sigma, count=MANY)
    found = {"first": [], "zeroth": [], "mixture": []}
    keys = jax.random.split(jax.random.key(1), REPEATS)
    for key in keys:
        a, b, c, d = jax.random.split(key, 4)
        first, other = (first_order(k, slopes, x, sigma=sigma, count=COUNT) for k in (a, b))
        zeroth, another = (zeroth_order(k, task, x, sigma=sigma, count=COUNT) for k in (c, d))
        found["first"].append(float(first.gradient[0]))
        found["zeroth"].append(float(zeroth.gradient[0]))
        found["mixture"].append(float(combine(first, zeroth, (other, another)).gradient[0]))
    exact = float(truth.gradient[0])
    told = {name: {"mean": float(np.mean(g)), "sd": float(np.std(g))} for name, g in found.items()}
    for name, g in found.items():
        told[name]["rms error"] = float(np.sqrt(np.mean((np.array(g) - exact) ** 2)))
    return {"u": u, "truth": exact, "truth error": float(truth.standard_error[0]), **told}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent / "results")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "companions_smoothing.json"
    results = begun(path)
    fig, axes = plt.subplots(2, 4, figsize=(15, 6), layout="constrained")
    for (name, (xml, start, driven, cost, steps, sigma, places)), column in zip(TASKS.items(), axes.T, strict=True):
        task, began = Task(xml, start, driven, cost, steps), time.perf_counter()
        line = np.linspace(places[0] - 2 * sigma, places[-1] + 2 * sigma, 300)
        if name not in results:
            rows = [judged(task, u, sigma) for u in places]
            seconds = round(time.perf_counter() - began, 1)
            results[name] = {"sigma": sigma, "rollouts": task.rollouts, "seconds": seconds, "rows": rows}
            path.write_text(json.dumps(results, indent=1) + "\n")
        raw = task(line[:, None])
        noise = sigma * np.random.default_rng(0).normal(size=400)
        smooth = [task(at + noise[:, None]).mean() for at in line[::15]]
        column[0].plot(line, raw, lw=1, color="grey", label="cost")
        column[0].plot(line[::15], smooth, color="black", label=f"smoothed, sigma {sigma:g}")
        column[0].set(title=name)
        column[0].legend(fontsize=7)
        at = np.arange(len(places))
        for shift, kind in enumerate(KINDS):
            means = [row[kind]["mean"] for row in results[name]["rows"]]
            spreads = [row[kind]["sd"] for row in results[name]["rows"]]
            column[1].errorbar(at + 0.12 * (shift - 1), means, spreads, fmt="o", ms=4, label=kind)
        column[1].plot(at, [row["truth"] for row in results[name]["rows"]], "k_", ms=22, label="truth")
        column[1].set_xticks(at, [f"{u:g}" for u in places])
        wide = max(row[kind]["sd"] for row in results[name]["rows"] for kind in KINDS) > 5.0
        column[1].set(xlabel="input", yscale="symlog" if wide else "linear")
        for row in results[name]["rows"]:
            told = ", ".join(
                f"{kind} {row[kind]['mean']:.3f} sd {row[kind]['sd']:.3f}" for kind in ("first", "zeroth", "mixture")
            )
            print(f"{name} {row['u']}: truth {row['truth']:.3f} ({row['truth error']:.3f}), {told}", flush=True)
    axes[0, 0].set_ylabel("cost")
    axes[1, 0].set_ylabel("gradient of the smoothed cost\n(mean and sd of 25 estimates)")
    axes[1, 0].legend(fontsize=7)
    fig.savefig(path.with_suffix(".png"), dpi=110)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    main()
