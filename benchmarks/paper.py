"""What the paper claims, measured: the variance of V(F(x)) on MuJoCo, and the surrogate Hessian against the exact one.

Run: python benchmarks/paper.py [variance] [hessian] [--out benchmarks/results]
It writes paper.json after every cell, so that a run that was stopped goes on, and a figure for each part. Five seeds each.
"""

import argparse
import json
import pathlib

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib as mpl
import mujoco
import numpy as np
import scipy.linalg
from provenance import begun

from dso_robotics.core import exact
from dso_robotics.core.families import FiniteMDP, stochastic_chain
from dso_robotics.core.fitting import fit_linear
from dso_robotics.core.gradient.score import (
    Baseline,
    DriftBaseline,
    NoBaseline,
    StateBaseline,
    assemble,
    batch_gradient,
)
from dso_robotics.core.method.newton import newton_direction
from dso_robotics.core.method.trust_region import TrustRegion
from dso_robotics.core.objective import Episodic, Problem
from dso_robotics.core.rollout import rollouts
from dso_robotics.core.value import Value, linear_value, polynomial_features
from dso_robotics.costs.composite import composite
from dso_robotics.costs.quantity import quantity
from dso_robotics.costs.task import Square
from dso_robotics.physics.model import load
from dso_robotics.robot.mechanism import Mechanism
from dso_robotics.robot.observation import state_observation
from dso_robotics.robot.policy import LinearPolicy
from dso_robotics.robot.system_build import robot_system
from dso_robotics.robot.system_state import Spread

mpl.use("Agg")
import matplotlib.pyplot as plt

SEEDS = range(5)
MODELS = pathlib.Path(__file__).parent.parent / "models"
NOISES = (0.01, 0.03, 0.1, 0.3, 0.6)
COUNT, STEPS, GAMMA, LAM = 256, 40, 0.95, 0.95


class GaeBaseline(Baseline):
    """b(x) = (V(x) - L(x)) / gamma: with it gamma A_t is L(x_t) + gamma R_{t+1} - V(x_t), what GAE subtracts."""

    value: Value

    def __call__(self, chain, value, state, theta):
        """See `Baseline`."""
        return (value(state) - chain.cost(state, theta)) / GAMMA


# Name -> the baseline of a fitted value, and lambda.
ESTIMATORS = {
    "no baseline": (lambda value: NoBaseline(), 1.0),
    "V(x)": (StateBaseline, 1.0),
    "GAE, lambda 1": (GaeBaseline, 1.0),
    f"GAE, lambda {LAM}": (GaeBaseline, LAM),
    "V(F(x))": (DriftBaseline, 1.0),
    f"V(F(x)), lambda {LAM}": (DriftBaseline, LAM),
}


def cartpole():
    """The balanced cart-pole of models/cartpole.xml under a regulator, and theta at its gain; noise is an entry of theta."""
    spec = mujoco.MjSpec.from_file(str(MODELS / "cartpole.xml"))
    spec.joint("slider").limited = mujoco.mjtLimited.mjLIMITED_FALSE
    robot = load(spec)
    mj, substeps = robot.mj, max(round(0.04 / robot.mj.opt.timestep), 1)
    data = mujoco.MjData(mj)
    a, b = np.zeros((4, 4)), np.zeros((4, 1))
    mujoco.mjd_transitionFD(mj, data, 1e-6, True, a, b, None, None)
    whole, push = np.eye(4), np.zeros((4, 1))
    for _ in range(substeps):
        whole, push = a @ whole, a @ push + b
    half = float(np.diff(mj.actuator_ctrlrange[0])[0]) / 2 if mj.actuator_ctrllimited[0] else 1.0
    push = push * half
    cost = {"x": 1.0, "angle": 10.0, "control": 0.1}
    m = scipy.linalg.solve_discrete_are(whole, push, np.diag([1.0, 10.0, 0.01, 0.01]), 0.1 * np.eye(1))
    gain = np.linalg.solve(0.1 + push.T @ m @ push, push.T @ m @ whole)
    terms = {
        "x": (cost["x"], Square(quantity("joint/slider/position", robot))),
        "angle": (cost["angle"], Square(quantity("joint/hinge/position", robot))),
        "control": (cost["control"], Square(quantity("control", robot))),
    }
    observation = state_observation(robot)
    chain = robot_system(
        Mechanism(robot),
        LinearPolicy(observation.size, 1),
        observation,
        scene_cost=composite(terms),
        seconds=substeps * float(mj.opt.timestep),
        noise=0.1,
        noise_free=True,
    )
    start = Spread(chain.rest(), jnp.array([0.2, 0.03]), jnp.array([0.1, 0.1]))
    chain = eqx.tree_at(lambda c: c.start, chain, start)
    theta = np.asarray(chain.layout.initial).copy()
    x, angle, v, w = -gain[0]
    theta[chain.layout.where("policy")] = [x, angle, 0.0, v, w, 0.0]  # of x, sine, cosine, velocities, and the offset
    return chain, theta


def features(state):
    """Monomials of positions, velocities and the last action, up to degree 2: the cost of the action is part of V."""
    numbers = jnp.concatenate([state.body.qpos, state.body.qvel, jnp.tanh(state.action)])
    return polynomial_features(2)(numbers)


def variance(cells: dict, store) -> None:
    """Variance of a rollout's gradient by the policy's weights, for noise of different size next to the drift."""
    chain, theta = cartpole()
    problem = Problem(chain, Episodic(GAMMA, STEPS), theta=jnp.asarray(theta))
    policy, noise = chain.layout.where("policy"), chain.layout.where("action noise")
    play = eqx.filter_jit(lambda key, at: rollouts(key, problem, at, count=COUNT))
    fit = eqx.filter_jit(
        lambda paths: fit_linear(linear_value(features, chain.rest()), paths, problem.objective, ridge=1e-9)
    )
    every = jnp.ones(theta.size, bool)

    @eqx.filter_jit
    def gradient(paths, at, baseline, lam):
        return batch_gradient(assemble(problem, at, paths, baseline, lam), entries=every, groups=COUNT)

    @eqx.filter_jit
    def ratio(paths, at):
        """Root mean square of the noise next to that of the drift, in units of the spread of the states."""
        flat = jax.tree.map(lambda leaf: leaf[:, :-1].reshape(COUNT * STEPS, *leaf.shape[2:]), paths.states)
        after = jax.tree.map(lambda leaf: leaf[:, 1:].reshape(COUNT * STEPS, *leaf.shape[2:]), paths.states)
        drift = jax.vmap(lambda state: chain.drift(state, at))(flat)
        x, following, mean = (jnp.concatenate([s.body.qpos, s.body.qvel], -1) for s in (flat, after, drift))
        spread = jnp.std(x, axis=0)
        return jnp.sqrt(jnp.mean(((following - mean) / spread) ** 2) / jnp.mean(((mean - x) / spread) ** 2))

    for sigma in NOISES:
        at = jnp.asarray(theta).at[noise].set(np.log(sigma))
        for seed in SEEDS:
            name = f"{sigma:g}/{seed}"
            if name in cells:
                continue
            earlier, now = jax.random.split(jax.random.key(seed))
            value, paths = fit(play(earlier, at)), play(now, at)
            row = {"noise over drift": float(ratio(paths, at)), "variance": {}, "mean": {}}
            for kind, (make, lam) in ESTIMATORS.items():
                found = gradient(paths, at, make(value), lam)
                row["variance"][kind] = float(COUNT * jnp.sum(found.standard_error[policy] ** 2))
                row["mean"][kind] = [float(entry) for entry in found.gradient[policy]]
            cells[name] = row
            store()
            told = ", ".join(f"{kind} {v / row['variance']['V(F(x))']:.3g}" for kind, v in row["variance"].items())
            print(
                f"noise {name}: over drift {row['noise over drift']:.3g}; variance over that of V(F(x)): {told}",
                flush=True,
            )


class Network(eqx.Module):
    """pi(u|x, theta): softmax of a network of tanh units on two coordinates of each cell of a grid."""

    where: jax.Array
    width: int = eqx.field(static=True)
    actions: int = eqx.field(static=True)

    @property
    def size(self) -> int:
        """Number of weights."""
        return self.width * 3 + self.actions * (self.width + 1)

    def __call__(self, theta):
        """Probabilities (ns, na)."""
        first, last = theta[: 3 * self.width].reshape(self.width, 3), theta[3 * self.width :].reshape(self.actions, -1)
        here = jnp.tanh(jnp.c_[self.where, jnp.ones(len(self.where))] @ first.T)
        return jax.nn.softmax(jnp.c_[here, jnp.ones(len(here))] @ last.T, axis=-1)


def grid(seed: int, side: int = 5):
    """A walk on a grid with random costs, slipping one time in five, and a policy of 46 weights."""
    rng, n = np.random.default_rng(seed), side * side
    cells = np.array([(i, j) for i in range(side) for j in range(side)])
    moves = np.array([(0, 1), (0, -1), (1, 0), (-1, 0)])
    dynamics = np.zeros((n, 4, n))
    for s, cell in enumerate(cells):
        ends = [tuple(np.clip(cell + move, 0, side - 1)) for move in moves]
        for u in range(4):
            for v, end in enumerate(ends):
                dynamics[s, u, end[0] * side + end[1]] += 0.85 if u == v else 0.05
    costs = np.repeat(rng.uniform(size=(n, 1)) ** 2, 4, axis=1) + 0.02 * rng.uniform(size=(n, 4))
    policy = Network(jnp.asarray(cells / (side - 1) * 2 - 1), 6, 4)
    theta = jnp.asarray(rng.normal(size=policy.size) * 0.5)
    chain = stochastic_chain(FiniteMDP(dynamics, costs, np.full(n, 1 / n)), policy, theta=theta)
    return Problem(chain, Episodic(0.9, 1), theta=theta), theta


def hessian(cells: dict, store) -> None:
    """Error of the surrogate Hessian along a training by Newton steps, and what steps on each matrix reach."""
    for seed in SEEDS:
        if str(seed) in cells:
            continue
        problem, start = grid(seed)
        kinds = {
            "exact Hessian": lambda t, p=problem: exact.hessian(p, t),
            "surrogate Hessian (75)": lambda t, p=problem: jax.hessian(lambda d: exact.surrogate(p, t, d))(
                jnp.zeros_like(t)
            ),
            "Fisher matrix (72)": lambda t, p=problem: exact.fisher(p, t),
        }
        kinds = {kind: eqx.filter_jit(matrix) for kind, matrix in kinds.items()}
        value = eqx.filter_jit(lambda t, p=problem: exact.cost(p, t))
        slope = eqx.filter_jit(lambda t, p=problem: exact.gradient(p, t))
        row = {"cost": {}, "error": [], "angle": []}
        for kind, matrix in kinds.items():
            theta, radius, trust, costs = start, 1.0, TrustRegion(radius=1.0, largest=10.0), [float(value(start))]
            for _ in range(60):
                direction = newton_direction(matrix(theta), slope(theta), longest=radius)
                if kind == "exact Hessian":
                    truth, found = kinds["exact Hessian"](theta), kinds["surrogate Hessian (75)"](theta)
                    row["error"].append(float(jnp.linalg.norm(found - truth) / jnp.linalg.norm(truth)))
                    other = newton_direction(found, slope(theta), longest=radius).step
                    cosine = other @ direction.step / (jnp.linalg.norm(other) * jnp.linalg.norm(direction.step))
                    row["angle"].append(float(jnp.degrees(jnp.arccos(jnp.clip(cosine, -1, 1)))))
                actual = float(value(theta) - value(theta + direction.step))
                accepted, radius = trust.judge(radius, actual, float(direction.predicted))
                theta = theta + direction.step if accepted and actual > 0 else theta
                costs.append(float(value(theta)))
            row["cost"][kind] = costs
        theta, costs, rate = start, [float(value(start))], 2.0
        for _ in range(60):
            theta = theta - rate * slope(theta)
            costs.append(float(value(theta)))
        row["cost"]["gradient, rate 2"] = costs
        cells[str(seed)] = row
        store()
        told = ", ".join(f"{kind} {costs[-1]:.4f}" for kind, costs in row["cost"].items())
        print(
            f"seed {seed}: error {row['error'][0]:.2f} to {row['error'][-1]:.2f}; J after 60 steps: {told}", flush=True
        )


def middle(rows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Median, lowest and highest over axis 0."""
    rows = np.asarray(rows, float)
    return np.median(rows, 0), rows.min(0), rows.max(0)


def draw_variance(cells: dict, out: pathlib.Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 4.5), dpi=120)
    by_noise = {s: [cells[f"{s:g}/{seed}"] for seed in SEEDS if f"{s:g}/{seed}" in cells] for s in NOISES}
    by_noise = {s: rows for s, rows in by_noise.items() if rows}
    x = [np.median([row["noise over drift"] for row in rows]) for rows in by_noise.values()]
    for kind in ESTIMATORS:
        every = [middle([r["variance"][kind] / r["variance"]["V(F(x))"] for r in rows]) for rows in by_noise.values()]
        centre, low, high = np.transpose(every)
        (line,) = axes.plot(x, centre, marker="o", ms=4, label=kind)
        axes.fill_between(x, low, high, color=line.get_color(), alpha=0.15, lw=0)
    axes.set(
        xscale="log", yscale="log", xlabel="noise over drift of a control step", ylabel="variance over that of V(F(x))"
    )
    axes.set_title("Gradient by the policy's weights, balanced cart-pole: median and range of 5 seeds", fontsize=10)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(out / "paper_variance.png")
    plt.close(figure)


def draw_hessian(cells: dict, out: pathlib.Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), dpi=120)
    centre, low, high = middle([row["error"] for row in cells.values()])
    (line,) = left.plot(centre, label="|surrogate - exact| / |exact|")
    left.fill_between(range(len(centre)), low, high, color=line.get_color(), alpha=0.2, lw=0)
    left.plot(
        middle([row["angle"] for row in cells.values()])[0] / 90.0, label="angle between the steps, in right angles"
    )
    left.set(xlabel="Newton steps", ylim=(0, None), title="Hessian (75) along a training")
    for kind in next(iter(cells.values()))["cost"]:
        lowest = [min(min(c) for c in row["cost"].values()) for row in cells.values()]
        gaps = [np.array(row["cost"][kind]) - least for row, least in zip(cells.values(), lowest, strict=True)]
        centre, low, high = middle([gap / gap[0] for gap in gaps])
        (line,) = right.plot(centre, label=kind)
        right.fill_between(range(len(centre)), low, high, color=line.get_color(), alpha=0.15, lw=0)
    right.set(xlabel="steps", ylim=(0, 1), title="J less the lowest, as a part of that at the start")
    for axes in (left, right):
        axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(out / "paper_hessian.png")
    plt.close(figure)


PARTS = {"variance": (variance, draw_variance), "hessian": (hessian, draw_hessian)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"which of {', '.join(PARTS)}; all by default")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent / "results")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    jax.config.update("jax_enable_x64", True)
    path = options.out / "paper.json"
    options.out.mkdir(parents=True, exist_ok=True)
    results = begun(path)
    for name in options.parts or PARTS:
        run, draw = PARTS[name]
        cells = results.setdefault(name, {})

        def store() -> None:
            rounded = json.loads(json.dumps(results), parse_float=lambda text: float(f"{float(text):.5g}"))
            path.write_text(json.dumps(rounded) + "\n")

        run(cells, store)
        draw(cells, options.out)


if __name__ == "__main__":
    main()
