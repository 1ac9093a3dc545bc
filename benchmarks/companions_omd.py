"""Optimal Model Design against maximum likelihood on the two-state process, as published and as the paper's text says.

Run: python benchmarks/companions_omd.py [--iterations 10000] [--out benchmarks/results]
It writes companions_omd.json after every cell, so that a run that was stopped goes on, and companions_omd.png.

Norm bounds linspace(0, 6, 20), ten seeds, projected Adam with step 0.01 (Nikishin et al. 2022, section 4.2 and their notebook).
All models of a cell are rows of one theta. `text` bounds the norm of all parameters, as the paper writes. `code` bounds what
the published notebook does: its optimiser maps the projection over the arrays, so logits and rewards are each bounded alone,
and in each of them the first half is divided by the temperature and the second half is not.
"""

import argparse
import json
import pathlib
import time

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import optax
from provenance import begun

from dso_robotics.core import exact
from dso_robotics.core.families import FiniteMDP, general_chain
from dso_robotics.core.implicit import Dense, Identity
from dso_robotics.core.method.first_order import FirstOrder
from dso_robotics.core.method.sampled import Stopping, minimise
from dso_robotics.core.model_design import PlannedPolicy, SoftmaxModel, model_error
from dso_robotics.core.objective import Episodic, Problem
from dso_robotics.core.sampler import ExactSampler

mpl.use("Agg")
import matplotlib.pyplot as plt

GAMMA, TEMPERATURE, SEEDS = 0.9, 0.01, 10
BOUNDS = np.linspace(0, 6, 20)
PUBLISHED = {
    "bound": (0.95, 1.26, 1.89, 2.84),
    "likelihood": (-0.48, 0.19, 0.66, 0.92),
    "designed": (0.13, 0.59, 1.0, 1.02),
}
TRUE = FiniteMDP(
    dynamics=jnp.array([[[0.7, 0.3], [0.99, 0.01]], [[0.2, 0.8], [0.99, 0.01]]]),
    costs=-jnp.array([[-0.45, -0.1], [0.5, 0.5]]),
    start=jnp.ones(2) / 2,
)
MODEL = SoftmaxModel(2, 2, scale=1.0 / TEMPERATURE)
LOGITS = 8


def true_cost(inverse):
    """theta -> J on the true process of the policy that is optimal for the model."""
    zero = jnp.zeros(MODEL.size)
    policy = PlannedPolicy(MODEL, gamma=GAMMA, temperature=TEMPERATURE, inverse=inverse)
    problem = Problem(general_chain(TRUE, policy, theta=zero), Episodic(GAMMA, 1), theta=zero)
    return lambda theta: exact.cost(problem, theta)


def by_code(theta, bound):
    """The projection of the published notebook. Its first index of the logits is the action."""
    logits, costs = theta[:LOGITS].reshape(2, 2, 2), theta[LOGITS:].reshape(2, 2)

    def shrunk(array, first, second):
        length = jnp.sqrt(jnp.sum((first / TEMPERATURE) ** 2) + jnp.sum(second**2))
        return array * jnp.minimum(1.0, bound / jnp.where(length > 0.0, length, 1.0))

    logits = shrunk(logits, logits[:, 0], logits[:, 1])
    return jnp.concatenate([logits.ravel(), shrunk(costs, costs[0], costs[1]).ravel()])


CRITERIA = {
    "likelihood": lambda theta: model_error(TRUE, *MODEL(theta)),
    "designed": true_cost(Dense()),
    "designed, identity": true_cost(Identity()),
}
PROJECTIONS = {"code": by_code, "text": MODEL.bounded}


def cell(criterion, project, iterations):
    """Returns (bounds, seeds) on the true process."""
    bounds = jnp.repeat(jnp.asarray(BOUNDS), SEEDS)
    start = jax.vmap(lambda key: jax.random.uniform(key, (MODEL.size,)))(jax.random.split(jax.random.key(0), SEEDS))
    start = jnp.tile(start.at[:, LOGITS:].multiply(-1.0), (len(BOUNDS), 1))

    def rows(theta):
        return theta.reshape(-1, MODEL.size)

    sampler = ExactSampler(lambda theta: jnp.sum(jax.vmap(criterion)(rows(theta))))
    rule = FirstOrder(optax.adam(0.01), lambda theta: jax.vmap(project)(rows(theta), bounds).ravel())
    stopping = Stopping(tolerance=0.0, noise_floor=False)
    result = minimise(jax.random.key(1), sampler, start.ravel(), rule, iterations=iterations, stopping=stopping)
    returns = -jax.jit(jax.vmap(CRITERIA["designed"]))(rows(result.theta))
    return np.asarray(returns).reshape(len(BOUNDS), SEEDS)


def draw(results, path):
    fig, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    for ax, projection in zip(axes, ("code", "text"), strict=True):
        for name, colour in (("likelihood", "tab:blue"), ("designed", "tab:red"), ("designed, identity", "tab:orange")):
            if f"{projection} {name}" not in results:
                continue
            returns = np.array(results[f"{projection} {name}"]["returns"])
            mean, spread = returns.mean(1), returns.std(1)
            ax.plot(BOUNDS, mean, "o-", color=colour, ms=3, label=name)
            ax.fill_between(BOUNDS, mean - spread, mean + spread, color=colour, alpha=0.15)
            if projection == "code" and name in PUBLISHED:
                ax.plot(PUBLISHED["bound"], PUBLISHED[name], "x", color=colour, ms=9, label=f"{name}, published")
        ax.axhline(1.0272727, color="black", ls="--", lw=1, label="optimal")
        ax.set(xlabel="bound of the norm of the model", title=f"bound as in the published {projection}")
        ax.legend(fontsize=8)
    axes[0].set_ylabel("return on the true process")
    fig.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=10_000)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent / "results")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "companions_omd.json"
    results = begun(path)
    truth = jnp.concatenate([TEMPERATURE * jnp.log(TRUE.dynamics).ravel(), TRUE.costs.ravel()])
    results["return of the true model"] = -float(true_cost(Dense())(truth))
    for projection, project in PROJECTIONS.items():
        for name, criterion in CRITERIA.items():
            key = f"{projection} {name}"
            if results.get(key, {}).get("iterations") == args.iterations:
                continue
            start = time.perf_counter()
            returns = cell(criterion, project, args.iterations)
            seconds = round(time.perf_counter() - start, 1)
            results[key] = {"iterations": args.iterations, "seconds": seconds, "returns": returns.round(7).tolist()}
            path.write_text(json.dumps(results, indent=1) + "\n")
            for bound in (3, 4, 6, 9):
                print(f"{key}, bound {BOUNDS[bound]:.2f}: {returns[bound].mean():.3f} sd {returns[bound].std():.3f}")
            print(f"{key}: {seconds} s", flush=True)
    draw(results, path.with_suffix(".png"))


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    main()
