"""Mechanism and policy optimised in one vector by dso, against a fixed mechanism, alternating optimisation, and CMA-ES.

Run: python benchmarks/design.py [--study reaching_arm] [--seeds 0 1 2 3 4] [--tool joint fixed turns cma nested]; a study is
one of examples/studies. CMA-ES is `cma` of requirements/bench.txt.
Costs are of an episode on C MuJoCo, on the exported model, at its time step and at a quarter of it. Numbers are written to
benchmarks/results/design.json when a seed has finished; --missing runs only those that are not there. --redraw draws the figure
and writes the table of the mechanisms with a known best design again from them.

joint: `dso design`.
fixed: the same training with the unchanged mechanism.
turns: alternately 20 iterations of the policy and 10 of the mechanism, with the same total.
cma: CMA-ES over the weights of a network of 16 units and the design in one vector, on C, with --more times (ten) the steps;
  what it has at as many steps as `dso design` is kept too.
nested: CMA-ES over the design; for each candidate a new policy is trained in half the iterations.
"""

import argparse
import dataclasses
import functools
import json
import os
import pathlib
import platform
import tempfile
import time

import design_page
import numpy as np
from provenance import begun, write_table

HERE = pathlib.Path(__file__).parent
STUDIES = HERE.parent / "examples" / "studies"
ARM = "reaching_arm"
RESULTS = HERE / "results" / "design.json"
PAGE = HERE.parent / "docs" / "measurements" / "design.md"
CACHE = tempfile.TemporaryDirectory()
TOOLS = ("joint", "fixed", "turns", "cma", "nested")
POLICY_TURN, DESIGN_TURN = 20, 10
MORE, GENERATIONS, HIDDEN = 10, 3, 16


def run_dso(study, tool: str) -> dict:
    """One training as a user starts it, with or without the study's design numbers."""
    from dso_robotics.studies.train import train

    study = study if tool == "joint" else dataclasses.replace(study, design={})
    began, used = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        found = train(study, pathlib.Path(folder) / "out")
    summary, history = found.summary, found.history
    return {
        "seed": study.seed,
        "cost": summary["cost"]["total"],
        "quarter_timestep": summary["cost"]["quarter_timestep"],
        "before": summary["cost"]["before"],
        "mjx": _on_mjx(found.task, found.theta, found.scaling) if found.task.engine.name == "mjx" else None,
        "steps": summary["environment_steps"],
        "design_rate": study.training.design_rate if study.design else None,
        "design": {name: row["value"] for name, row in summary["parameters"].items()},
        "history": {
            name: history[key].tolist()
            for name, key in (("steps", "steps"), ("cost", "episode_cost"), ("seconds", "seconds"))
        },
        "compile": summary["seconds"]["compile"],
        "cpu_seconds": time.process_time() - used,
        "total": time.perf_counter() - began,
        "cores": len(os.sched_getaffinity(0)),
    }


def _on_mjx(task, theta, scaling, count: int = 3) -> float:
    """Mean cost of episodes without noise on MJX, which was used for training; same start states as in the evaluation on C."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    chain = eqx.tree_at(lambda c: c.scaling, task.chain, scaling)
    vector = jnp.asarray(theta)

    @jax.jit
    def episode(key):
        bound = chain.bind(vector)

        def step(state, _):
            state = bound.drift(state, vector)
            return state, bound.cost(state, vector)

        return jnp.sum(jax.lax.scan(step, bound.initial(key, vector), None, length=task.steps)[1])

    return float(np.mean([episode(jax.random.key(seed)) for seed in range(count)]))


class Training:
    """The method of `train` with one block of theta fixed; compiled once for all mechanisms."""

    def __init__(self, study, iterations: int, block: str, rate: float = 0.0):
        import jax

        from dso_robotics.robot.schedule import training_method
        from dso_robotics.studies.train_build import build

        self.task = build(study)
        design_rate = rate or dict(self.task.windows.rates).get("design", self.task.windows.learning_rate)
        rates = {"policy": (("policy", 0.0), ("design", design_rate)), "design": (("design", 0.0),)}[block]
        settings = dataclasses.replace(self.task.windows, iterations=iterations, rates=rates)
        self.method = training_method(self.task.chain, settings, explore=self.task.explore)
        self.key, self.settings, self.compiled = jax.random.key(study.seed), settings, False

    def begin(self, theta):
        learner = self.method.init(self.key, np.asarray(theta))
        if not self.compiled:
            self.method.compile(learner)
            self.compiled = True
        return learner

    def step(self, learner):
        return self.method.step(learner)[0]


class Judge:
    """Mean cost of episodes of the exported model on C MuJoCo, as reported by dso."""

    def __init__(self, task):
        from dso_robotics.robot.play import Player

        self.task, self.player = task, Player(task.chain)

    def __call__(self, theta, scaling, seeds: int = 3, finer: int = 1) -> float:
        from dso_robotics.studies.trained_robot import compiled

        theta = np.asarray(theta)
        model, more = compiled(self.task, theta), {"steps": self.task.steps, "finer": finer}
        played = [self.player.play(theta, scaling, seed=s, model=model, **more) for s in range(seeds)]
        return float(np.mean([np.inf if episode.ended else episode.cost for episode in played]))


def _design(task, theta) -> dict[str, float]:
    mechanism = task.chain.mechanism
    values = np.asarray(task.chain.numbers(np.asarray(theta)))
    return dict(zip(mechanism.names, map(float, values), strict=True))


def run_turns(study, tool: str) -> dict:
    """Policy and mechanism alternately, with as many iterations and environment steps as the joint training; keeps the best."""
    began = time.perf_counter()
    iterations = study.training.iterations
    policy, mechanism = Training(study, iterations, "design"), Training(study, iterations, "policy")
    task, judge = policy.task, Judge(policy.task)
    learner = policy.begin(task.chain.layout.initial)
    mechanism.begin(task.chain.layout.initial)
    compile_seconds = time.perf_counter() - began
    rows, best = [], (np.inf, learner)
    for i in range(iterations):
        turn = policy if i % (POLICY_TURN + DESIGN_TURN) < POLICY_TURN else mechanism
        learner = turn.step(learner)
        if (i + 1) % (POLICY_TURN + DESIGN_TURN) == 0:
            cost = judge(learner.theta, learner.memory, 1)
            best = min(best, (cost, learner), key=lambda pair: pair[0])
            steps = (i + 1) * policy.settings.environments * policy.settings.horizon
            rows.append((steps, cost, time.perf_counter() - began))
    steps, costs, seconds = (list(column) for column in zip(*rows, strict=True))
    theta, scaling = best[1].theta, best[1].memory
    return {
        "seed": study.seed,
        "cost": judge(theta, scaling),
        "quarter_timestep": judge(theta, scaling, finer=4),
        "steps": policy.settings.steps,
        "design_rate": policy.task.study.training.design_rate,
        "design": _design(task, theta),
        "history": {"steps": steps, "cost": costs, "seconds": seconds},
        "compile": compile_seconds,
        "total": time.perf_counter() - began,
        "cores": len(os.sched_getaffinity(0)),
    }


def run_cma(study, tool: str, more: float = MORE) -> dict:
    """CMA-ES over weights and design; a small network, since CMA-ES learns a covariance of all weights."""
    import design_search

    from dso_robotics.studies.train_build import build

    used = time.process_time()
    task = build(dataclasses.replace(study, policy=dataclasses.replace(study.policy, hidden=(HIDDEN,))))
    steps = task.windows.steps
    theta, found = design_search.both(task, study.seed, round(more * steps), Judge(task), equal=steps)
    equal = found["equal_steps"]
    equal["design"] = _design(task, equal.pop("theta"))
    return {**found, "design": _design(task, theta), "cpu_seconds": time.process_time() - used}


def run_nested(study, tool: str) -> dict:
    """CMA-ES over the design only; every evaluation is a training of the policy with half its iterations."""
    import design_search

    began = time.perf_counter()
    training = Training(study, study.training.iterations // 2, "design")
    task, settings = training.task, training.settings
    layout, best, rows, judge = task.chain.layout, None, [], Judge(task)
    where = layout.where("design")

    def train(numbers: np.ndarray) -> float:
        nonlocal best
        theta = np.array(layout.initial)
        theta[where] = numbers
        learner = training.begin(theta)
        for _ in range(settings.iterations):
            learner = training.step(learner)
        cost = judge(learner.theta, learner.memory)
        if best is None or cost < best[0]:
            best = (cost, learner)
        return cost

    initial = np.asarray(layout.initial)[where]
    for count, _, cost in design_search.design_only(train, initial, study.seed, GENERATIONS):
        rows.append((count * settings.steps, cost, time.perf_counter() - began))
        print(f"nested seed {study.seed}: {count} trainings, best cost {cost:.2f}, {rows[-1][2]:.0f} s", flush=True)
    assert best is not None
    steps, costs, seconds = (list(column) for column in zip(*rows, strict=True))
    return {
        "seed": study.seed,
        "cost": best[0],
        "quarter_timestep": judge(best[1].theta, best[1].memory, finer=4),
        "steps": steps[-1],
        "trainings": steps[-1] // settings.steps,
        "design": _design(task, best[1].theta),
        "history": {"steps": steps, "cost": costs, "seconds": seconds},
        "total": time.perf_counter() - began,
        "cores": len(os.sched_getaffinity(0)),
    }


def draw(results: dict) -> None:
    """For every study the curves of all seeds and, beside them, their final values."""
    from dso_robotics.report import canvas

    figure, axes = canvas.rows(2.9, len(results), (1.7, 1.0), share=False)
    for (study, found), (curves, ends) in zip(results.items(), axes, strict=True):
        names = [tool for tool in TOOLS if found.get(tool)]
        for k, tool in enumerate(names):
            runs, colour = found[tool], canvas.PALETTE[TOOLS.index(tool)]
            for i, run in enumerate(runs):
                past = run["history"]
                least = np.minimum.accumulate(past["cost"])
                curves.plot(past["steps"], least, color=colour, linewidth=1.1, label=tool if i == 0 else None)
            costs = [run["cost"] for run in runs]
            places = k + 0.06 * (np.arange(len(costs)) - (len(costs) - 1) / 2)
            ends.plot(places, costs, "o", color=colour, markersize=4)
            ends.plot([k - 0.3, k + 0.3], [np.median(costs)] * 2, color=colour, linewidth=1.5)
        curves.set_xscale("log")
        low, high = curves.get_ylim()
        if high > 10 * low:
            curves.set_yscale("log")
        for axis in (curves.xaxis, curves.yaxis):
            axis.set_minor_formatter("")
        ends.set_ylim(0, 1.08 * ends.get_ylim()[1])
        curves.legend(frameon=False, fontsize=canvas.SMALL)
        ends.set_xticks(range(len(names)), names)
        canvas.title(curves, f"{study}: least cost so far of an episode on C MuJoCo, a line a seed")
        canvas.title(ends, "at the end; bar: median")
        canvas.label(curves, y="cost", inches=(0.24, 0.5))
    canvas.label(axes[-1, 0], x="environment steps", inches=(0.24, 0.5))
    (HERE / "results" / "design.png").write_bytes(canvas.picture(figure, "design.png", "").png)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", default=ARM, help="name of a study with design numbers in examples/studies")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--tool", nargs="+", default=["joint", "fixed", "turns"], choices=TOOLS)
    parser.add_argument(
        "--more", type=float, default=MORE, help="environment steps of cma, as a multiple of those of joint"
    )
    parser.add_argument("--missing", action="store_true", help="leave out the seeds that the results have")
    parser.add_argument("--redraw", action="store_true")
    args = parser.parse_args()
    from dso_robotics.cli.jax_setup import prepare_jax
    from dso_robotics.studies.train_study import TrainStudy

    prepare_jax()
    # A cache of this run's own: the first training of a tool compiles cold, as a user's first run does, the others warm.
    os.environ["JAX_COMPILATION_CACHE_DIR"] = CACHE.name
    if not args.redraw:
        study = TrainStudy.read(STUDIES / f"{args.study}.toml")
        for tool in args.tool:
            run = {"turns": run_turns, "nested": run_nested}.get(tool, run_dso)
            run = functools.partial(run_cma, more=args.more) if tool == "cma" else run
            for seed in args.seeds:
                if args.missing and seed in _seeds(args.study, tool):
                    continue
                found = run(dataclasses.replace(study, seed=seed), tool)
                _keep(args.study, tool, found)
                print(
                    f"{args.study}, {tool} seed {seed}: cost {found['cost']:.2f}, at a quarter of the time step "
                    f"{found['quarter_timestep']:.2f}, {found['steps']} steps, {found['total']:.0f} s",
                    flush=True,
                )
    runs = json.loads(RESULTS.read_text())["runs"]
    draw(runs)
    write_table(PAGE, "design.py", design_page.table(runs))


def _seeds(study: str, tool: str) -> list[int]:
    """The seeds that the file has."""
    runs = json.loads(RESULTS.read_text())["runs"] if RESULTS.exists() else {}
    return [run["seed"] for run in runs.get(study, {}).get(tool, [])]


def _keep(study: str, tool: str, found: dict) -> None:
    """Write one run to the file, replacing an older one with the same seed."""
    import mujoco

    results = begun(RESULTS)
    runs = results.setdefault("runs", {}).setdefault(study, {})
    runs[tool] = sorted(
        [r for r in runs.get(tool, []) if r["seed"] != found["seed"]] + [found], key=lambda r: r["seed"]
    )
    results["machine"] = (
        f"two cores of a shared x86 machine, python {platform.python_version()}, mujoco {mujoco.__version__}"
    )
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
