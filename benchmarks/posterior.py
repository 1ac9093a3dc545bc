"""Are samples of `dso identify --posterior` calibrated? Simulation-based calibration on three small problems.

`python -m benchmarks.posterior` draws numbers, noise and start states from their priors, simulates a log, identifies, and takes
the rank of the truth among the samples (Talts et al., 2018): for a calibrated posterior ranks are uniform. It stores every draw
in benchmarks/results/posterior.json and goes on where it stopped; `--seconds` ends it earlier, `--draws` says how many (200).
Beside it: coverage of the jackknife's 95% intervals on the same logs, and on the first log of each problem a plain random walk
(Metropolis) on the same likelihood. `--page` prints the tables of docs/posterior.md.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from scipy import stats

from benchmarks.provenance import begun
from dso_robotics.core.covariance import uncertainty
from dso_robotics.core.importance import UNRELIABLE_K
from dso_robotics.core.method.gauss_newton import solve
from dso_robotics.core.method.least_squares import Solution
from dso_robotics.costs.identification import WindowedIdentification
from dso_robotics.costs.marginal import Marginal
from dso_robotics.data.atomic import atomic_file
from dso_robotics.data.log import Log
from dso_robotics.data.match import match_channels
from dso_robotics.data.rollout import Rollout
from dso_robotics.data.windows import cut
from dso_robotics.errors import DsoError
from dso_robotics.parameters.path import parse
from dso_robotics.parameters.vector import pack
from dso_robotics.physics.model import load
from dso_robotics.robot import start
from dso_robotics.robot.prediction import CPrediction
from dso_robotics.studies.posterior import draw, laplace_covariance

RESULTS = Path(__file__).parent / "results" / "posterior.json"
SAMPLES, WALK = 99, 1000
# Bins of the rank histograms: fewer where there are few logs.
BINS, FEW, MANY = 10, 5, 100
RUNS, SECONDS, WINDOW = 3, 2.0, 0.5

PENDULUM = """<mujoco><option timestep="0.01" integrator="implicitfast"/><worldbody><body name="pole">
<joint name="hinge" axis="0 1 0" damping="0.1"/><inertial pos="0 0 -0.3" mass="0.7" diaginertia="0.01 0.01 0.001"/></body>
</worldbody><actuator><motor name="motor" joint="hinge"/></actuator>
<sensor><jointpos name="angle" joint="hinge"/><jointvel name="speed" joint="hinge"/></sensor></mujoco>"""
SPRING = """<mujoco><option timestep="0.01" integrator="implicitfast"/><worldbody><body name="cart">
<joint name="slide" type="slide" axis="1 0 0" damping="0.5" stiffness="20"/><geom size="0.1" mass="1"/></body>
</worldbody><actuator><motor name="push" joint="slide" gear="5"/></actuator>
<sensor><jointpos name="place" joint="slide"/></sensor></mujoco>"""
CART_POLE = """<mujoco><option timestep="0.01" integrator="implicitfast"/><worldbody><body name="cart">
<joint name="slider" type="slide" axis="1 0 0" damping="0.5"/><geom type="box" size="0.1 0.1 0.1" mass="1"/><body name="pole">
<joint name="hinge" axis="0 1 0" damping="0.01"/><geom type="capsule" fromto="0 0 0 0 0 -0.6" size="0.02" mass="0.2"/></body>
</body></worldbody><actuator><motor name="drive" joint="slider" gear="5"/></actuator>
<sensor><jointpos name="place" joint="slider"/><jointpos name="angle" joint="hinge"/></sensor></mujoco>"""

# Model, free numbers with their uniform priors, noise of each channel (its scale is drawn within a factor 2), size of controls.
PROBLEMS: dict[str, tuple[str, dict[str, tuple[float, float]], tuple[float, ...], float]] = {
    "pendulum": (
        PENDULUM,
        {"joint/hinge/damping": (0.02, 0.2), "joint/hinge/stiffness": (0.0, 2.0), "body/pole/mass": (0.4, 1.2)},
        (0.02, 0.2),
        1.0,
    ),
    "spring, positions only": (
        SPRING,
        {"joint/slide/damping": (0.0, 1.5), "joint/slide/stiffness": (5.0, 40.0), "actuator/push/gear[0]": (2.0, 8.0)},
        (0.05,),
        1.0,
    ),
    "cart-pole, positions only": (
        CART_POLE,
        {"joint/slider/damping": (0.0, 1.5), "body/pole/mass": (0.05, 0.5), "actuator/drive/gear[0]": (2.0, 8.0)},
        (0.02, 0.05),
        1.0,
    ),
}


def drawn(name: str, seed: int) -> tuple[WindowedIdentification, Solution, np.ndarray]:
    """A log of drawn numbers, the problem of identifying them, its solution, and the numbers (n,)."""
    xml, priors, noise, size = PROBLEMS[name]
    rng = np.random.default_rng(seed)
    robot = load(mujoco.MjSpec.from_string(xml))
    low, high = np.array(list(priors.values())).T
    truth = rng.uniform(low, high)
    vector = pack([parse(f"{path}@{a}:{b}") for path, (a, b) in priors.items()], robot)
    out = _recorded(vector, truth, noise, size, rng)
    channels = match_channels(out, robot.mj)
    windows = cut(out.rollouts, channels, timestep=0.01, seconds=WINDOW)
    prediction = CPrediction(vector, windows, threads=1)
    x, z, sigma = start.guess(windows, vector.mj), vector.initial, None
    box: dict[str, Any] = {"low": vector.low, "high": vector.high, "scale": vector.scale}
    for free in (False, True):
        problem = WindowedIdentification(vector, windows, prediction, sigma=sigma, free_starts=free)
        solution = solve(problem, z, x, **box)
        z, x, sigma = solution.z, solution.x, problem.sigma
    return problem, solution, truth


def _recorded(vector: Any, truth: np.ndarray, noise: tuple[float, ...], size: float, rng: np.random.Generator) -> Log:
    """RUNS runs from drawn starts under random steps, each with its own noise scales."""
    from dso_robotics.physics.batch import BatchEngine

    model, steps, runs = vector.mj, int(SECONDS / 0.01), []
    names = [model.sensor(i).name for i in range(model.nsensor)]
    units = [{"angle": "rad", "speed": "rad/s"}.get(name, "m") for name in names]
    for run in range(RUNS):
        begun = np.concatenate([rng.normal(size=model.nq) * 0.5, rng.normal(size=model.nv)])
        ctrl = size * np.repeat(rng.normal(size=(steps // 20 + 1, model.nu)), 20, axis=0)[:steps]
        fields = {k: v[None] for k, v in vector.fields(truth).items()}
        exact = BatchEngine(model, threads=1).simulate(fields, begun[None], ctrl[None]).sensordata[0]
        scale = np.array(noise) * np.exp(rng.uniform(-np.log(2), np.log(2), size=len(noise)))
        more = {"ctrl_names": (model.actuator(0).name,), "sensor_names": tuple(names)}
        runs.append(
            Rollout(
                name=f"run{run}",
                time=0.01 * np.arange(steps),
                ctrl=ctrl,
                sensordata=exact + scale * rng.normal(size=exact.shape),
                sensor_units=tuple(units),
                **more,
            )
        )
    return Log("", "simulated", "CC0", tuple(runs))


def calibrated(name: str, seed: int, tries: int = SAMPLES) -> dict[str, Any]:
    """Ranks of the truth among SAMPLES of the tries, and whether the jackknife's intervals hold it."""
    began = time.perf_counter()
    problem, solution, truth = drawn(name, seed)
    spread = uncertainty(solution, problem.vector.scale, redundancy=problem.redundancy)
    fitted = time.perf_counter() - began
    row: dict[str, Any] = {"seed": seed, "fit_seconds": fitted}
    try:
        found = draw(problem, solution, spread, count=tries, seed=seed)
    except DsoError as error:
        return row | {"failed": str(error)}
    half = spread.quantile * spread.std
    centre = spread.centre
    z = found.z[np.random.default_rng([seed, 5]).permutation(len(found.z))[:SAMPLES]]
    low, high = np.quantile(z, [0.025, 0.975], axis=0)
    return row | {
        "ranks": (z < truth).sum(0).tolist(),
        "inside": ((low <= truth) & (truth <= high)).tolist(),
        "jackknife_inside": ((centre - half <= truth) & (truth <= centre + half)).tolist(),
        "over_jackknife": ((high - low) / (2 * half)).tolist(),
        "reliable": found.reliable,
        "pareto_k": found.diagnostics["pareto_k"],
        "effective": found.diagnostics["effective"],
        "seconds": found.diagnostics["seconds"],
    }


def walked(name: str, seed: int = 0) -> dict[str, Any]:
    """A random walk on the likelihood beside importance sampling, on one log: means, deviations, seconds."""
    problem, solution, _ = drawn(name, seed)
    spread = uncertainty(solution, problem.vector.scale, redundancy=problem.redundancy)
    found = draw(problem, solution, spread, count=500, seed=1)
    marginal, rng, vector = Marginal(problem, solution), np.random.default_rng(2), problem.vector
    n = vector.size
    factor = 2.4 / np.sqrt(n) * np.linalg.cholesky(laplace_covariance(problem, solution))
    began, z, cost, rows, accepted = time.perf_counter(), solution.z, marginal.at(solution.z).cost, [], 0
    for _ in range(WALK):
        other = z + factor @ rng.normal(size=n)
        if np.all((other >= vector.low) & (other <= vector.high)):
            there = marginal.at(other).cost
            if np.log(rng.random()) < cost - there:
                z, cost, accepted = other, there, accepted + 1
        rows.append(z)
    walk = np.array(rows[WALK // 10 :])
    std = walk.std(0)
    return {
        "mean_apart": float(np.max(np.abs(found.z.mean(0) - walk.mean(0)) / std)),
        "deviation_ratio": float(np.max(np.abs(np.log(found.z.std(0) / std)))),
        "accepted": accepted / WALK,
        "walk_effective": float(min(_effective(column) for column in walk.T)),
        "walk_seconds": time.perf_counter() - began,
        "effective": found.diagnostics["effective"],
        "seconds": found.diagnostics["seconds"],
    }


def _effective(x: np.ndarray) -> float:
    """Effective number of draws, by Geyer's initial positive sequence."""
    y = x - x.mean()
    power = np.abs(np.fft.rfft(y, 2 * len(y))) ** 2
    rho = np.fft.irfft(power)[: len(y)]
    rho = rho / rho[0]
    total = 1.0
    for i in range(1, len(rho) - 1, 2):
        if rho[i] + rho[i + 1] < 0:
            break
        total += 2 * (rho[i] + rho[i + 1])
    return len(x) / total


def central(ranks: np.ndarray) -> float:
    """Share of ranks in the middle 95 of the 100 that there are; 0.95 is expected of a calibrated posterior.

    Quantiles of 99 samples would hold 93% only: they are inside the samples' own range.
    """
    edge = round(0.025 * (SAMPLES + 1) - 0.5)
    far = np.minimum(ranks, SAMPLES - ranks)
    return float(np.mean((far > edge) + 0.5 * (far == edge)))


def titled(name: str, tries: int) -> str:
    """Where the logs of a problem with so many tries are kept."""
    return name if tries == SAMPLES else f"{name}, {tries} tries"


def page(results: dict[str, Any]) -> str:
    """The tables of docs/posterior.md."""
    lines = [
        "| problem (number) | logs | rank histogram | chi-squared p | central 95% of ranks | 95% jackknife | width over it |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    kept = [(name, label) for name in PROBLEMS for label in results if label == name or label.startswith(f"{name}, ")]
    for problem, name in kept:
        rows = [row for row in results[name].get("draws", []) if "ranks" in row]
        if not rows:
            continue
        ranks = np.array([row["ranks"] for row in rows])
        for j, path in enumerate(PROBLEMS[problem][1]):
            bins = BINS if len(rows) >= MANY else FEW
            counts = np.histogram(ranks[:, j], bins=bins, range=(0, SAMPLES + 1))[0]
            p = stats.chisquare(counts).pvalue
            inside, jack = 100 * central(ranks[:, j]), 100 * np.mean([row["jackknife_inside"][j] for row in rows])
            ratio = np.median([row["over_jackknife"][j] for row in rows])
            lines.append(
                f"| {name}: `{path}` | {len(rows)} | {' '.join(map(str, counts))} | {p:.2f} "
                f"| {inside:.1f}% | {jack:.0f}% | {ratio:.2f} |"
            )
    lines += [
        "",
        "| problem | seconds a fit | seconds, 99 samples | Pareto k above 0.7 | random walk: means apart, ln(deviation) apart "
        "| its effective draws and seconds | ours |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name in PROBLEMS:
        entry = results.get(name, {})
        rows = [row for row in entry.get("draws", []) if "ranks" in row]
        walk = entry.get("walk")
        if not rows or not walk:
            continue
        fit, seconds = (np.median([row[key] for row in rows]) for key in ("fit_seconds", "seconds"))
        bad = sum(row["pareto_k"] > UNRELIABLE_K for row in rows)
        lines.append(
            f"| {name} | {fit:.2f} | {seconds:.1f} | {bad} of {len(rows)} | {walk['mean_apart']:.2f} deviations, "
            f"{walk['deviation_ratio']:.2f} | {walk['walk_effective']:.0f}, {walk['walk_seconds']:.0f} s | "
            f"{walk['effective']:.0f}, {walk['seconds']:.0f} s |"
        )
    return "\n".join(lines)


def main() -> int:
    """Run what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=np.inf)
    parser.add_argument("--tries", type=int, default=SAMPLES, help=f"of which {SAMPLES} are taken for the ranks")
    parser.add_argument("--problem", choices=PROBLEMS, action="append")
    parser.add_argument("--page", action="store_true")
    args = parser.parse_args()
    results = begun(RESULTS)
    began = time.perf_counter()

    def store() -> None:
        RESULTS.parent.mkdir(exist_ok=True)
        with atomic_file(RESULTS) as temporary:
            temporary.write_text(json.dumps(results, indent=0))

    if not args.page:
        for seed in range(args.draws):
            for name in args.problem or PROBLEMS:
                rows = results.setdefault(titled(name, args.tries), {}).setdefault("draws", [])
                if seed in {row["seed"] for row in rows} or time.perf_counter() - began > args.seconds:
                    continue
                rows.append(calibrated(name, seed, args.tries))
                store()
                print(name, seed, rows[-1].get("pareto_k"), file=sys.stderr)
        for name in args.problem or PROBLEMS:
            if "walk" not in results.setdefault(name, {}) and time.perf_counter() - began <= args.seconds:
                results[name]["walk"] = walked(name)
                store()
    print(page(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
