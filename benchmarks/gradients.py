"""Gradient estimators side by side: bias and variance, the variance law, optimisers to 1% of the optimum, and time.

Run: python benchmarks/gradients.py [--out benchmarks/results]
It writes gradients.json and four figures. Everything is compared with closed forms.
"""

import argparse
import json
import os
import pathlib
import platform
import sys
import time
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import optax
from gradients_problems import Stage, hand_pathwise, hand_score, pendulum, regulator, scalar_loop, square
from provenance import command

from dso_robotics.core import exact
from dso_robotics.core.fitting import fit_linear
from dso_robotics.core.gradient.estimate import group_count
from dso_robotics.core.gradient.mixed import mixed
from dso_robotics.core.gradient.pathwise import pathwise
from dso_robotics.core.gradient.score import DriftBaseline, NoBaseline, StateBaseline, score
from dso_robotics.core.method.chain_iteration import ChainIteration
from dso_robotics.core.method.first_order import FirstOrder
from dso_robotics.core.method.natural import Natural
from dso_robotics.core.method.newton import Newton
from dso_robotics.core.method.proximal import Proximal
from dso_robotics.core.method.sampled import Stopping, minimise
from dso_robotics.core.method.trust_region import TrustRegion
from dso_robotics.core.objective import Episodic, Problem, TimeVarying
from dso_robotics.core.rollout import rollouts
from dso_robotics.core.sampler import ExactSampler, ScoreSampler
from dso_robotics.core.value import KnownValue, LinearValue, linear_value, one_hot, polynomial_features
from dso_robotics.core.zlearning import FinitePassive, FromBaseline, Greedy, energy_chain, learn_table

mpl.use("Agg")
import matplotlib.pyplot as plt

COUNTS = (8, 32, 128, 512)
REPEATS = 200
SEEDS = (1, 2, 3)


def bias_and_spread(stage: Stage) -> dict:
    """Bias and standard deviation, relative to |gradient|, of each estimator against the number of rollouts."""
    problem, theta = stage.problem, stage.theta
    roll = eqx.filter_jit(rollouts)(jax.random.key(99), problem, theta, count=100)
    value = fit_linear(linear_value(polynomial_features(2), jnp.zeros(2)), roll, problem.objective, lam=1.0)
    # A critic fitted on one batch of 100 rollouts and biased as a network would be: 10% too flat.
    critic = LinearValue(value.features, 0.9 * value.weights)
    one = np.array([True, False])
    estimators = {
        "score, no baseline": lambda k, n: score(k, problem, theta, count=n, baseline=NoBaseline())[0],
        "score, V(x)": lambda k, n: score(k, problem, theta, count=n, baseline=StateBaseline(value))[0],
        "score, V(F(x))": lambda k, n: score(k, problem, theta, count=n, baseline=DriftBaseline(value))[0],
        "pathwise, H = 1": lambda k, n: pathwise(k, problem, theta, count=n, horizon=1, value=critic)[0],
        "pathwise, H = 8": lambda k, n: pathwise(k, problem, theta, count=n, horizon=8, value=critic)[0],
        "pathwise, H = all": lambda k, n: pathwise(k, problem, theta, count=n)[0],
        "mixed": lambda k, n: mixed(k, problem, theta, count=n, by_score=one, baseline=DriftBaseline(value))[0],
    }
    told, size = {}, np.linalg.norm(stage.gradient)
    for name, estimator in estimators.items():
        rows = []
        for count in COUNTS:
            keys = jax.random.split(jax.random.key(count), REPEATS)
            draws = np.asarray(
                jax.jit(lambda ks, e=estimator, n=count: jax.lax.map(lambda k: e(k, n).gradient, ks))(keys)
            )
            off = draws.mean(axis=0) - np.asarray(stage.gradient)
            spread = np.sqrt(np.sum(draws.var(axis=0)))
            rows.append({"count": count, "bias": np.linalg.norm(off) / size, "spread": spread / size})
        told[name] = rows
    return told


def variance_law() -> dict:
    """Variance of the unrolled gradient against the horizon, for closed loops of given Lipschitz constant."""
    told, horizons = {}, [2, 4, 8, 16, 32]
    for lipschitz in (0.8, 1.0, 1.1, 1.2):
        rows = []
        for horizon in horizons:
            chain, theta = scalar_loop(lipschitz)
            problem = Problem(chain, TimeVarying(horizon), theta=theta)
            estimate, _ = pathwise(jax.random.key(horizon), problem, theta, count=4000)
            rows.append(float(estimate.standard_error[0] ** 2 * 4000))
        told[str(lipschitz)] = {"horizon": horizons, "variance": rows}
    return told


def known_derivative() -> dict:
    """E[x^2 theta], x ~ N(theta, 1), theta = 1, batches of 1000: the derivative is 4, without the density's part 2."""
    told = {}
    for name, (problem, estimator) in square().items():
        theta = jnp.ones(1)
        keys = jax.random.split(jax.random.key(0), 1000)

        def one(key, p=problem, e=estimator, t=theta):
            return e(key, p, t, count=1000)[0].gradient[0]

        draws = np.asarray(jax.jit(lambda ks, f=one: jax.lax.map(f, ks))(keys))
        told[name] = {"mean": float(draws.mean()), "spread": float(draws.std()), "draws": draws.tolist()}
    return told


def race(cost, best, sampler, theta, methods, transitions, limit) -> dict:
    """Iterations and transitions until J(theta), in closed form, is within 1% of the way from the start to the optimum."""
    first, told = float(cost(theta)), {}
    for name, method in methods.items():
        per = 0 if isinstance(sampler, ExactSampler) else transitions * (2 if method.judged else 1)
        began, runs = time.perf_counter(), []
        for seed in SEEDS:
            gaps = [1.0]

            def watch(moment, gaps=gaps):
                gaps.append((float(cost(moment.state.theta)) - best) / (first - best))
                return gaps[-1] < 0.01

            stopping = Stopping(noise_floor=False, tolerance=0.0)
            minimise(jax.random.key(seed), sampler, theta, method, iterations=limit, stopping=stopping, watch=watch)
            runs.append(gaps)
        iterations = [len(gaps) - 1 if gaps[-1] < 0.01 else None for gaps in runs]
        told[name] = {"iterations": iterations, "transitions": [None if i is None else i * per for i in iterations]}
        told[name] |= {"seconds": time.perf_counter() - began, "gaps": runs, "transitions each": per}
    return told


def middle(numbers: list) -> tuple:
    """Median, minimum and maximum of one number per seed; None if a run did not reach the goal."""
    ordered = sorted(np.inf if number is None else number for number in numbers)
    return tuple(None if np.isinf(n) else n for n in (float(np.median(ordered)), ordered[0], ordered[-1]))


def regulator_race() -> dict:
    """The linear-quadratic problem, starting from a poor gain."""
    stage = regulator(noise=0.1)
    gamma, chain = stage.problem.objective.gamma, stage.problem.chain

    @jax.jit
    def cost(theta):
        return chain.episodic_cost(theta, gamma)

    exactly = minimise(jax.random.key(0), ExactSampler(cost), stage.theta, Newton(jax.hessian(cost)))

    def refit(batch, baseline):
        return DriftBaseline(fit_linear(baseline.value, batch.trajectory, batch.problem.objective, lam=0.9))

    sampler = ScoreSampler(stage.problem, 100, DriftBaseline(linear_value(polynomial_features(2), jnp.zeros(2))), refit)
    methods = {
        "Adam": FirstOrder(optax.adam(0.1)),
        "natural": Natural(TrustRegion(radius=0.03), closed=True),
        "chain iteration": ChainIteration(eta=1.0, divergence_weight=20.0),
        "PCO": Proximal(learning_rate=0.05, divergence_limit=0.1),
        "Newton": Newton(),
    }
    steps = stage.problem.objective.steps
    return race(cost, float(cost(exactly.theta)), sampler, stage.theta, methods, 100 * steps, 150)


def solvable_race() -> dict:
    """A random linearly solvable walk to an exit: theta is the energy of each state, z = exp(-theta)."""
    size, rng = 12, np.random.default_rng(0)
    base = np.where(rng.uniform(size=(size, size)) < 0.4, rng.uniform(size=(size, size)), 0.0) + 0.2 * np.eye(size, k=1)
    base[-1] = np.eye(size)[-1]
    base /= base.sum(axis=1, keepdims=True)
    costs = np.append(rng.uniform(0.2, 1.0, size - 1), 0.0)
    start = np.append(np.full(size - 1, 1.0 / (size - 1)), 0.0)
    passive = FinitePassive(jnp.array(base), jnp.array(costs), jnp.array(start), jnp.arange(size) == size - 1)
    theta = jnp.zeros(size)
    problem = Problem(energy_chain(passive, jnp.eye(size), gamma=1.0, theta=theta), Episodic(1.0, 80), theta=theta)
    cost = eqx.filter_jit(lambda t: exact.cost(problem, t))
    z = exact.optimal_z(passive.base, passive.costs, terminal=passive.exits)
    best = float(-passive.start @ jnp.log(z))

    def refit(batch, baseline):
        return StateBaseline(fit_linear(baseline.value, batch.trajectory, batch.problem.objective, lam=1.0))

    sampler = ScoreSampler(problem, 100, StateBaseline(LinearValue(one_hot(size), jnp.zeros(size))), refit)
    methods = {
        "Adam": FirstOrder(optax.adam(0.1)),
        "natural": Natural(TrustRegion(radius=0.03), closed=True),
        "chain iteration": ChainIteration(eta=1.0, divergence_weight=2.0),
        "PCO": Proximal(learning_rate=0.05, divergence_limit=0.1),
        "Newton": Newton(),
    }
    length = float(jnp.sum(exact.visitation(problem, theta)))
    told = race(cost, best, sampler, theta, methods, round(100 * length), 150)
    for name, kind, patience in (("Z-learning, base", FromBaseline(), 30.0), ("Z-learning, greedy", Greedy(), jnp.inf)):
        began, runs, hits = time.perf_counter(), [], []
        for seed in SEEDS:
            learned = learn_table(jax.random.key(seed), passive, kind, steps=30_000, patience=patience, record=25)
            tables = jnp.vstack([jnp.ones((1, size)), learned.history])
            gaps = (np.asarray(jax.vmap(lambda table: cost(-jnp.log(table)))(tables)) - best) / (
                float(cost(theta)) - best
            )
            hit = next((i for i in range(len(gaps)) if np.all(gaps[i:] < 0.01)), None)
            hits.append(None if hit is None else 25 * hit)
            runs.append(gaps[: max(400, 0 if hit is None else hit + 1)].tolist())
        told[name] = {"iterations": [None] * len(SEEDS), "transitions": hits}
        told[name] |= {"seconds": time.perf_counter() - began, "gaps": runs, "transitions each": 25}
    return told


def timing() -> dict:
    """Milliseconds for one gradient: the core as it is called, the core within the caller's own jit, the loss by hand.

    All are timed in turn, so that other work on the machine affects them equally. A ratio is the median over the turns of the
    ratio within a turn. By hand and within a jit, the compiled function returns only the estimate. A call of the core also
    checks its arguments and returns the rollouts.
    """
    told = {}
    for name, stage in {"regulator, 2 parameters": regulator(steps=50), "pendulum, network policy": pendulum()}.items():
        problem, theta, count = stage.problem, stage.theta, stage.count
        value = KnownValue(stage.value)
        baseline = DriftBaseline(value)
        groups = group_count(count, theta.shape[0], None)

        def by_score(key, theta, groups=None, p=problem, c=count, b=baseline):
            return score(key, p, theta, count=c, baseline=b, groups=groups)[0]

        def by_path(key, theta, groups=None, p=problem, c=count, v=value):
            return pathwise(key, p, theta, count=c, value=v, groups=groups)[0]

        pairs = {
            "score": (partial(by_score, groups=1), hand_score(stage)),
            "score, with error": (by_score, hand_score(stage, groups)),
            "pathwise": (partial(by_path, groups=1), hand_pathwise(stage)),
            "pathwise, with error": (by_path, hand_pathwise(stage, groups)),
        }
        runs = {kind: (core, jax.jit(core), hand) for kind, (core, hand) in pairs.items()}
        seconds = {kind: ([], [], []) for kind in runs}
        for turn in range(101):
            for kind, three in runs.items():
                for run, taken in zip(three, seconds[kind], strict=True):
                    key = jax.block_until_ready(jax.random.key(turn))
                    began = time.perf_counter()
                    jax.block_until_ready(run(key, theta))
                    taken.append(time.perf_counter() - began)
        told[name] = {}
        for kind, taken in seconds.items():
            called, within, hand = np.array(taken)[:, 1:]  # the first turn compiles
            row = {"core": 1e3 * np.median(called), "within a jit": 1e3 * np.median(within)}
            row |= {"by hand": 1e3 * np.median(hand), "ratio within a jit": np.median(within / hand)}
            low, ratio, high = np.percentile(called / hand, (25, 50, 75))
            told[name][kind] = row | {"ratio": ratio, "ratio, quartiles": [low, high]}
    return told


def draw(results: dict, out: pathlib.Path) -> None:
    """The four figures."""
    plt.rcParams |= {"axes.spines.top": False, "axes.spines.right": False, "font.size": 9, "figure.dpi": 130}
    colours = dict(zip(next(iter(results["estimators"].values())), plt.cm.tab10.colors, strict=False))
    figure, axes = plt.subplots(2, 2, figsize=(9, 6.4), sharex=True, sharey="row")
    for column, (stage, told) in enumerate(results["estimators"].items()):
        for name, rows in told.items():
            spread, bias = (np.array([r[what] for r in rows]) for what in ("spread", "bias"))
            # Dashed where one curve would hide another.
            style = "o--" if name in ("pathwise, H = all", "mixed") else "o-"
            axes[0, column].loglog(COUNTS, spread, style, ms=3, lw=1.2, label=name, color=colours[name])
            seen = bias > 3.0 * spread / np.sqrt(REPEATS)
            axes[1, column].loglog(COUNTS, np.where(seen, bias, np.nan), "o-", ms=5, lw=1.5, color=colours[name])
            axes[1, column].loglog(COUNTS, bias, ".:", ms=3, lw=0.7, alpha=0.6, color=colours[name])
        axes[0, column].set_title(f"{stage} chain")
        axes[1, column].set_xlabel("rollouts a gradient")
        axes[1, column].set_xticks(COUNTS, [str(count) for count in COUNTS])
        axes[1, column].minorticks_off()
    axes[0, 0].set_ylabel("standard deviation / |gradient|")
    axes[1, 0].set_ylabel("|bias| / |gradient|")
    handles, labels = axes[0, 1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", bbox_to_anchor=(0.5, 0.03), ncols=4, frameon=False)
    note = "lower row: a large dot is a bias that was seen, a small one lies within three standard errors of none"
    figure.text(0.5, 0.01, note, ha="center", va="bottom", fontsize=8)
    figure.tight_layout(rect=(0, 0.1, 1, 1))
    figure.savefig(out / "gradients_estimators.png")

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6))
    for (lipschitz, told), colour in zip(
        results["variance_law"].items(), plt.cm.viridis(np.linspace(0, 0.85, 4)), strict=True
    ):
        h, factor = np.array(told["horizon"]), max(float(lipschitz), 1.0)
        left.loglog(h, told["variance"], "o-", ms=3, color=colour, label=f"L = {lipschitz}")
        bound = h**4.0 * factor ** (4.0 * h)
        scale = max(v / b for v, b in zip(told["variance"], bound, strict=True))
        left.loglog(h, scale * bound, ":", color=colour, lw=1)
    left.set(
        xlabel="horizon H, steps",
        ylabel="variance of one rollout's gradient",
        title=r"variance law (dotted: $H^4 \max(L, 1)^{4H}$)",
    )
    left.set_xticks(h, [str(step) for step in h])
    left.minorticks_off()
    left.legend(frameon=False)
    for name, told in results["known_derivative"].items():
        right.hist(told["draws"], bins=40, histtype="stepfilled", alpha=0.6, label=f"{name}: {told['mean']:.2f}")
    right.axvline(4.0, color="k", lw=1)
    right.set(
        xlabel="estimate from 1000 samples (line: truth)",
        yticks=[],
        title=r"$\partial_\theta\,E[x^2\theta]$ at $\theta = 1$",
    )
    right.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.42, 1.0))
    figure.tight_layout()
    figure.savefig(out / "gradients_variance.png")

    figure, axes = plt.subplots(1, 2, figsize=(9, 4.2), sharey=True)
    methods = list(dict.fromkeys(method for told in results["race"].values() for method in told))
    colours = dict(zip(methods, plt.cm.tab10.colors, strict=False))
    for axis, (name, told) in zip(axes, results["race"].items(), strict=True):
        for method, row in told.items():
            longest = max(len(gaps) for gaps in row["gaps"])
            gaps = np.array([np.pad(gaps, (0, longest - len(gaps)), mode="edge") for gaps in row["gaps"]])
            gaps, used = gaps[:, 1:], row["transitions each"] * np.arange(1, longest)
            axis.loglog(used, np.median(gaps, axis=0), lw=1.3, label=method, color=colours[method])
            axis.fill_between(used, gaps.min(axis=0), gaps.max(axis=0), alpha=0.2, lw=0, color=colours[method])
        axis.set_xlim(0.8 * min(row["transitions each"] for row in told.values()), None)
        axis.set_ylim(3e-4, 10.0)
        axis.axhline(0.01, color="0.6", lw=0.8, ls="--")
        axis.set(xlabel="transitions sampled (dashed: 1%)", title=name)
    axes[0].set_ylabel("distance to the optimum / at the start")
    handles = {label: line for axis in axes for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(
        handles.values(), handles.keys(), loc="lower center", bbox_to_anchor=(0.5, 0.04), ncols=4, frameon=False
    )
    note = f"line: median of {len(SEEDS)} seeds, band: their range; a run that has arrived stays where it stopped"
    figure.text(0.5, 0.01, note, ha="center", va="bottom", fontsize=8)
    figure.tight_layout(rect=(0, 0.15, 1, 1))
    figure.savefig(out / "gradients_optimisers.png")
    plt.close("all")


def show(results: dict) -> None:
    """The table."""
    for stage, told in results["estimators"].items():
        print(f"\n{stage} chain, {COUNTS[-1]} rollouts (relative to |gradient|)")
        for name, rows in told.items():
            print(f"  {name:24s} bias {rows[-1]['bias']:8.4f}   spread {rows[-1]['spread']:8.4f}")
    print("\nknown derivative 4")
    for name, told in results["known_derivative"].items():
        print(f"  {name:24s} mean {told['mean']:8.3f}   spread {told['spread']:8.3f}")
    for problem, told in results["race"].items():
        print(f"\nto 1% of the optimum: {problem}")
        for name, row in told.items():
            cells = [f"{sum(n is not None for n in row['transitions'])} of {len(SEEDS)} arrive"]
            for what in ("iterations", "transitions"):
                if any(number is not None for number in row[what]):
                    median, low, high = middle(row[what])
                    cells.append(f"{what} {median} ({low} to {high})")
            print(f"  {name:20s} {'   '.join(cells)}")


def show_times(times: dict) -> None:
    """The table of times."""
    for name, rows in times.items():
        print(f"\ntime of one gradient, ms: {name}")
        for kind, row in rows.items():
            low, high = row["ratio, quartiles"]
            print(f"  {kind:22s} core {row['core']:6.2f}   within a jit {row['within a jit']:6.2f}", end="")
            print(f"   by hand {row['by hand']:6.2f}   ratio {row['ratio']:.3f} ({low:.3f} to {high:.3f})", end="")
            print(f", within a jit {row['ratio within a jit']:.3f}", flush=True)


def rounded(part):
    """All numbers of a nested structure, rounded to five digits."""
    if isinstance(part, dict):
        return {key: rounded(value) for key, value in part.items()}
    if isinstance(part, list | tuple):
        return [rounded(value) for value in part]
    return float(f"{part:.5g}") if isinstance(part, float | np.floating) else part


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent / "results")
    parser.add_argument("--redraw", action="store_true", help="only draw the figures again, from gradients.json")
    options = parser.parse_args()
    out = options.out
    if options.redraw:
        return draw(json.loads((out / "gradients.json").read_text()), out)
    out.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_enable_x64", True)
    began = time.perf_counter()
    times = timing()  # first, so that a machine needs to be idle for a minute only
    show_times(times)
    results = {
        "command": command(),
        "machine": {"system": platform.system(), "cpu": platform.machine(), "cores": os.cpu_count(), "device": "cpu"},
        "versions": {"python": sys.version.split()[0], "jax": jax.__version__, "equinox": eqx.__version__},
        "time": times,
        "estimators": {
            "soft": bias_and_spread(regulator(noise=0.05)),
            "stiff": bias_and_spread(regulator(noise=0.05, stiff=True)),
        },
        "variance_law": variance_law(),
        "known_derivative": known_derivative(),
        "race": {"linear-quadratic": regulator_race(), "linearly solvable walk": solvable_race()},
    }
    results["seconds"] = time.perf_counter() - began
    show(results)
    (out / "gradients.json").write_text(json.dumps(rounded(results), indent=None) + "\n")
    draw(rounded(results), out)
    print(f"\n{results['seconds']:.0f} s; figures and gradients.json in {out}")
    return None


if __name__ == "__main__":
    main()
