"""Value expansion on a pendulum: the variance law in H, the horizon rule, and value against value-gradient critics.

Run: python benchmarks/companions_expansion.py [variance] [critics] ["rule pendulum"] ["rule chaos"] [flow]
It writes companions_expansion.json after every part, and a figure for each.

A pendulum with limited torque and a linear policy of two gains, gamma 0.95, noise of the torque; the model is perfect.
`variance`: of the pathwise gradient by horizon, without a critic, at gains that stabilise, do nothing, and drive it apart.
`critics`: error of the policy gradient, closed every H steps by a critic fitted on the same number of simulated steps, once on
values (TD(lambda)) and once on value gradients (TD(k)), both linear in 60 random features. Five seeds. `rule`: training with
fixed horizons and with the longest whose variance stays under a bound, three seeds, here
and on a chaotic map. `flow`: noise of two modes inferred from recorded steps by a normalising flow and by normal noise.
"""

import argparse
import functools
import json
import pathlib
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from provenance import begun

from dso_robotics.core.chain import Chain
from dso_robotics.core.descent import descend
from dso_robotics.core.fitting import fit_linear, fit_slope, value_gradient_targets
from dso_robotics.core.flow_chain import FlowChain, StepModel, fit_steps, regressed
from dso_robotics.core.gradient.pathwise import pathwise
from dso_robotics.core.gradient.recorded import recorded_pathwise
from dso_robotics.core.method.adaptive_horizon import AdaptiveHorizon
from dso_robotics.core.method.course import Course
from dso_robotics.core.method.settings import Settings
from dso_robotics.core.method.short_horizon import ShortHorizon
from dso_robotics.core.objective import Episodic, Problem
from dso_robotics.core.rollout import rollouts
from dso_robotics.core.value import KnownValue, LinearValue, ValueGradient, ZeroValue

mpl.use("Agg")
import matplotlib.pyplot as plt

GAMMA, HORIZONS = 0.95, (1, 2, 4, 8, 16, 32)
# Gains on angle (from upright) and speed.
GAINS = {"stabilised": (-14.0, -4.0), "free": (0.0, 0.0), "driven apart": (4.0, 2.0)}


class Pendulum(Chain):
    """Angle [rad] from upright and speed [rad/s]; torque limited to 20, steps of 0.05 s."""

    spread: jax.Array

    def initial(self, key, theta):
        return self.spread * jax.random.normal(key, (2,))

    def draw(self, key, theta, steps):
        return 0.5 * jax.random.normal(key, (steps,))

    def move(self, noise, state, theta):
        torque = 20.0 * jnp.tanh((theta @ state + noise) / 20.0)
        speed = state[1] + 0.05 * (9.81 * jnp.sin(state[0]) - 0.1 * state[1] + torque)
        return jnp.stack([state[0] + 0.05 * speed, speed])

    def step(self, key, state, theta):
        return self.move(self.draw(key, theta, 1)[0], state, theta)

    def cost(self, state, theta):
        torque = 20.0 * jnp.tanh(theta @ state / 20.0)
        return 1.0 - jnp.cos(state[0]) + 0.05 * state[1] ** 2 + 0.002 * torque**2


CHAIN = Pendulum(jnp.array([0.6, 0.6]))


class Wild(Pendulum):
    """x' = 3.5 sin(x) + theta0 x + theta1 + noise: chaotic, until a feedback of about -3.5 tames it."""

    def initial(self, key, theta):
        return self.spread[:1] * jax.random.normal(key, (1,))

    def draw(self, key, theta, steps):
        return 0.1 * jax.random.normal(key, (steps, 1))

    def move(self, noise, state, theta):
        return 3.5 * jnp.sin(state) + theta[0] * state + theta[1] + noise

    def cost(self, state, theta):
        return jnp.sum(jnp.tanh(state**2 / 4.0))


def angles(state, theta):
    """What the pendulum's critic sees."""
    return jnp.concatenate([jnp.sin(state), jnp.cos(state[:1]), jnp.tanh(state[1:])])


def waves(state, theta):
    """What the critic of the map sees."""
    return jnp.concatenate([jnp.sin(state), jnp.cos(state), state / 4])


# Name -> chain, start of theta, step size, the critic's inputs.
TASKS = {
    "pendulum": (CHAIN, GAINS["driven apart"], 0.2, 4, angles),
    "chaos": (Wild(jnp.ones(1)), (-0.2, 0.1), 0.05, 3, waves),
}


def variance():
    """Variance of one rollout's gradient (summed over gains), by policy and horizon."""
    found = {}
    for name, gains in GAINS.items():
        theta, rows = jnp.array(gains), []
        for horizon in HORIZONS:
            problem = Problem(CHAIN, Episodic(GAMMA, horizon), theta=theta)
            estimate, _ = pathwise(jax.random.key(0), problem, theta, count=4000)
            rows.append(float(jnp.sum(estimate.standard_error**2) * 4000))
        found[name] = rows
        print(f"variance, {name}:", dict(zip(HORIZONS, np.round(rows, 4), strict=True)), flush=True)
    return found


class Features(eqx.Module):
    weights: jax.Array
    shifts: jax.Array

    def __call__(self, state):
        return jnp.concatenate([jnp.ones(1), jnp.tanh(self.weights @ state + self.shifts)])


def critics(seeds=5, windows=64, steps=32):
    """Relative error of the gradient by critic and horizon, (seeds,) each."""
    theta = jnp.array(GAINS["stabilised"])
    long = Problem(CHAIN, Episodic(GAMMA, 160), theta=theta)
    truth, _ = pathwise(jax.random.key(99), long, theta, count=20_000)
    size, found = jnp.linalg.norm(truth.gradient), {kind: [] for kind in ("none", "value", "value gradient")}
    data = Problem(CHAIN, Episodic(GAMMA, steps), theta=theta)

    @eqx.filter_jit
    def fitted(key):
        keys = jax.random.split(key, 6)
        features = Features(jax.random.normal(keys[0], (60, 2)), jax.random.normal(keys[1], (60,)))
        start = LinearValue(features, jnp.zeros(61))
        paths = rollouts(keys[2], data, theta, count=windows)
        value = fit_linear(start, paths, data.objective, lam=0.95, ridge=1e-6)
        # As many simulated steps: from `windows` states of the same rollouts, `steps` each, in two halves with bootstrap.
        states = paths.states.reshape(-1, 2)
        slope = ValueGradient(lambda x: jnp.zeros(2))
        for part in range(2):
            states_ = jax.random.choice(keys[3 + part], states, (windows,))
            targets = value_gradient_targets(keys[5], data, theta, states=states_, horizon=steps // 2, critic=slope)
            slope = fit_slope(features, states_, targets, ridge=1e-4)
        return value, slope

    for seed in range(seeds):
        value, slope = fitted(jax.random.key(seed))
        for kind, critic in (("none", ZeroValue()), ("value", value), ("value gradient", slope)):
            if kind == "none" and seed:
                continue
            estimates = [
                pathwise(jax.random.key(7), long, theta, count=1000, horizon=h, value=critic)[0] for h in HORIZONS
            ]
            found[kind].append([float(jnp.linalg.norm(one.gradient - truth.gradient) / size) for one in estimates])
        print(f"critics, seed {seed}", flush=True)
    for kind, rows in found.items():
        print(f"critics, {kind}:", dict(zip(HORIZONS, np.median(rows, 0).round(3), strict=True)), flush=True)
    return found


def judged(chain, theta):
    problem = Problem(chain, Episodic(GAMMA, 160), theta=theta)
    paths = rollouts(jax.random.key(5), problem, theta, count=2000)
    return float(jnp.mean(paths.costs @ GAMMA ** jnp.arange(161)))


class Spans:
    """Keeps the horizon of every iteration."""

    def __init__(self, kept):
        self.kept = kept

    def __call__(self, moment):
        if hasattr(moment.state, "horizon"):
            self.kept.append(int(moment.state.horizon))


def rule(task, seeds=3, iterations=150):
    """Cost of the trained policy by horizon, (seeds,), and the adaptive horizon along the training."""
    chain, theta, rate, width, features = TASKS[task]
    theta, course, found = jnp.array(theta), Course(chain, width, features), {}
    for name in (1, 4, 16, 32, "adaptive"):
        made, horizon = (AdaptiveHorizon, 32) if name == "adaptive" else (ShortHorizon, name)
        # The same number of simulated steps in an iteration.
        more = {
            "critic_hidden": 32,
            "learning_rate": rate,
            "restart": 0.3,
            "gamma": GAMMA,
            "episode": 100,
            "variance": 0.3,
        }
        settings = Settings(environments=512 // horizon, horizon=horizon, iterations=iterations, **more)
        method = made(course, settings, theta=np.asarray(theta), blocks=[slice(0, 2)], rates=np.full(2, rate))
        costs, spans = [], []
        for seed in range(seeds):
            done = descend(method, method.init(jax.random.key(seed), theta), iterations=iterations, watch=Spans(spans))
            costs.append(judged(chain, done.theta))
        found[str(name)] = {"costs": costs, "horizons": spans}
        print(
            f"{task}, H {name}: {np.round(costs, 3)}" + (f", horizon at the end {spans[-1]}" if spans else ""),
            flush=True,
        )
    found["start"] = judged(chain, theta)
    return found


class Latched(FlowChain):
    """A learned chain of one number under u = theta0 x + theta1."""

    model: StepModel

    def initial(self, key, theta):
        return jax.random.uniform(key, (1,), minval=-1.0, maxval=1.0)

    def bottleneck(self, state, theta):
        return theta[:1] * state + theta[1:]

    def cost_through(self, state, h):
        return state[0] ** 2


def latch(key, count):
    """x, u and x' = 0.8 x +- 0.5 + 0.25 xi; the action moves the probability of plus, 1 / (1 + exp(-1.5 u))."""
    keys = jax.random.split(key, 4)
    x, u = (jax.random.uniform(k, (count, 1), minval=-1.0, maxval=1.0) for k in keys[:2])
    sign = jnp.where(jax.random.uniform(keys[2], (count, 1)) < jax.nn.sigmoid(1.5 * u), 0.5, -0.5)
    return x, u, 0.8 * x + sign + 0.25 * jax.random.normal(keys[3], (count, 1))


def flow():
    """KL divergence [nats] of learned noise from the true one, and error of SVG(1) at theta (0.6, -0.2) with V = x^3."""
    x, u, after = latch(jax.random.key(11), 40_000)
    theta, found = jnp.array([0.6, -0.2]), {}
    chance = jnp.concatenate([jax.nn.sigmoid(1.5 * u), jax.nn.sigmoid(-1.5 * u)], axis=1)
    means = jnp.concatenate([0.8 * x + 0.5, 0.8 * x - 0.5], axis=1)
    truth = jnp.log(jnp.sum(chance * jax.scipy.stats.norm.pdf(after, means, 0.25), axis=1))

    def expected(theta):
        mean = [m**3 + 3 * m * 0.25**2 for m in (0.8 * x + 0.5, 0.8 * x - 0.5)]
        plus = jax.nn.sigmoid(1.5 * (theta[0] * x + theta[1]))
        return GAMMA * jnp.mean(plus * mean[0] + (1.0 - plus) * mean[1])

    exact = jax.grad(expected)(theta)
    for count in (1000, 4000, 16_000):
        steps = latch(jax.random.key(0), count)
        for name, bins in (("flow", 8), ("normal", 0)):
            begun = regressed(jax.random.key(3), steps, layers=1, bins=bins, hidden=16)
            model, _ = fit_steps(jax.random.key(1), begun, steps, iterations=200, rate=1e-2)
            noise = jax.vmap(model.inferred)(after, x, u)[:, None]
            value = KnownValue(lambda state: state[0] ** 3)
            slope = recorded_pathwise(Latched(model), theta, x, noise, gamma=GAMMA, value=value)
            found[f"{name} {count}"] = {
                "divergence": float(jnp.mean(truth - jax.vmap(model.log_prob)(after, x, u))),
                "error": float(jnp.linalg.norm(slope.gradient - exact) / jnp.linalg.norm(exact)),
                "standard_error": float(jnp.linalg.norm(slope.standard_error) / jnp.linalg.norm(exact)),
            }
            print(f"{name}, {count} steps: {found[f'{name} {count}']}", flush=True)
    return found


def draw(results, out):
    if "variance" in results:
        fig, ax = plt.subplots(figsize=(5.5, 4), layout="constrained")
        for name, rows in results["variance"].items():
            ax.plot(HORIZONS, rows, "o-", label=f"{name} {GAINS[name]}")
        first = results["variance"]["stabilised"][0]
        ax.plot(HORIZONS, first * np.array(HORIZONS, float) ** 4, "k:", label="H^4")
        ax.set(xscale="log", yscale="log", xlabel="horizon H", ylabel="variance of one rollout's gradient")
        ax.legend(fontsize=8)
        fig.savefig(out / "companions_expansion_variance.png", dpi=110)
    if "critics" in results:
        fig, ax = plt.subplots(figsize=(5.5, 4), layout="constrained")
        for name, rows in results["critics"].items():
            ax.plot(HORIZONS, np.median(rows, 0), "o-", label=f"closed by: {name}")
            ax.fill_between(HORIZONS, np.min(rows, 0), np.max(rows, 0), alpha=0.12)
        ax.set(xscale="log", yscale="log", xlabel="horizon H", ylabel="error of the policy gradient, relative")
        ax.legend(fontsize=8)
        fig.savefig(out / "companions_expansion_critics.png", dpi=110)
    tasks = [task for task in TASKS if f"rule {task}" in results]
    if tasks:
        fig, axes = plt.subplots(len(tasks), 2, figsize=(9, 3.2 * len(tasks)), squeeze=False, layout="constrained")
        for task, row in zip(tasks, axes, strict=True):
            told = results[f"rule {task}"]
            names = [name for name in told if name != "start"]
            for at, name in enumerate(names):
                row[0].plot([at] * len(told[name]["costs"]), told[name]["costs"], "o", ms=4)
            row[0].set_xticks(range(len(names)), [f"H = {name}" if name != "adaptive" else name for name in names])
            row[0].set(ylabel="discounted cost, by seed", title=f"{task} (before: {told['start']:.1f})")
            for line in np.reshape(told["adaptive"]["horizons"], (len(told["adaptive"]["costs"]), -1)):
                row[1].plot(line)
            row[1].set(xlabel="iteration", ylabel="adaptive horizon, by seed")
        fig.savefig(out / "companions_expansion_rule.png", dpi=110)


def main():
    parts = {"variance": variance, "critics": critics, "flow": flow} | {
        f"rule {task}": functools.partial(rule, task) for task in TASKS
    }
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=list(parts))
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent / "results")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "companions_expansion.json"
    results = begun(path)
    for name in args.parts:
        if name not in results:
            start = time.perf_counter()
            results[name] = parts[name]()
            path.write_text(json.dumps(results, indent=1) + "\n")
            print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    draw(results, args.out)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    main()
