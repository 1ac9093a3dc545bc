"""Composite costs against single costs: what a log adds to a task.

Run: python benchmarks/composites.py sim_to_real|demonstrations|two_tasks|randomised [--seeds 3]. Costs are of episodes on C
MuJoCo without noise. Numbers are written to benchmarks/results/composites.json.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import platform
import sys
import tempfile

import numpy as np
from provenance import begun

HERE = pathlib.Path(__file__).parent
STUDIES = HERE.parent / "examples" / "studies"
RESULTS = HERE / "results" / "composites.json"


def sim_to_real(seed: int) -> dict:
    """Swing-up of the log's cart-pole: trained on the unchanged model, while it is identified, and on the true model."""
    from dso_robotics.robot.play import Player
    from dso_robotics.studies.train import train
    from dso_robotics.studies.train_study import TrainStudy

    sys.path.insert(0, str(HERE.parent))
    from datasets.record_cartpole import TRUTH, true_model

    study = dataclasses.replace(TrainStudy.read(STUDIES / "cartpole_sim_to_real.toml"), seed=seed)
    nominal = dataclasses.replace(study, free=(), cost={"swing-up": study.cost["swing-up"]})
    model, rows = true_model(), {}
    with tempfile.TemporaryDirectory() as folder:
        true = pathlib.Path(folder) / "true.xml"
        spec_to_file(true)
        studies = {"nominal": nominal, "identified": study, "true": dataclasses.replace(nominal, model=str(true))}
        for name, one in studies.items():
            found = train(one, pathlib.Path(folder) / name)
            player = Player(found.task.chain)
            played = [
                player.play(found.theta, found.scaling, steps=found.task.steps, seed=s, model=model).cost
                for s in range(3)
            ]
            values = {path: row["value"] for path, row in found.summary["parameters"].items()}
            rows[name] = {
                "return": float(found.task.steps - np.mean(played)),
                "return_on_its_own_model": float(found.task.steps - found.summary["cost"]["total"]),
                "seconds": found.summary["seconds"],
                "parameters": values,
                "error": {path: value / TRUTH[path.split("+")[-1]] - 1 for path, value in values.items()},
            }
    return rows


def spec_to_file(path: pathlib.Path) -> None:
    """The true cart-pole as MJCF."""
    from datasets.record_cartpole import true_spec

    path.write_text(true_spec().to_xml())


def demonstrations(seed: int) -> dict:
    """Swing-up with recorded demonstrations, without them, and from demonstrations only."""
    from dso_robotics.robot.play import Player
    from dso_robotics.studies.train import train
    from dso_robotics.studies.train_build import build
    from dso_robotics.studies.train_study import TrainStudy

    study = dataclasses.replace(TrainStudy.read(STUDIES / "cartpole_demonstrations.toml"), seed=seed)
    task, shown = study.cost["swing-up"], study.cost["shown"]
    costs = {
        "both": study.cost,
        "task": {"swing-up": task},
        "demonstrations": {
            "swing-up": dataclasses.replace(task, weight=1e-6),
            "shown": dataclasses.replace(shown, fade=None),
        },
    }
    judge, rows = build(dataclasses.replace(study, cost={"swing-up": task})), {}
    for name, cost in costs.items():
        with tempfile.TemporaryDirectory() as folder:
            found = train(dataclasses.replace(study, cost=cost), pathlib.Path(folder) / "out")
        player = Player(judge.chain)
        played = [player.play(found.theta, found.scaling, steps=judge.steps, seed=s).cost for s in range(3)]
        enough = np.flatnonzero(found.history["episode_cost"] < judge.steps - 700.0)
        rows[name] = {
            "return": float(judge.steps - np.mean(played)),
            "steps_to_700": float(found.history["steps"][enough[0]])
            if len(enough) and name != "demonstrations"
            else None,
            "curve": (judge.steps - found.history["episode_cost"]).tolist() if name != "demonstrations" else None,
            "seconds": found.summary["seconds"],
        }
    return rows


def two_tasks(seed: int) -> dict:
    """One recurrent network on two tasks, gated and plain: cost of an episode of each task, before and after."""
    from dso_robotics.studies.train import train
    from dso_robotics.studies.train_study import TrainStudy

    study, rows = dataclasses.replace(TrainStudy.read(STUDIES / "two_tasks.toml"), seed=seed), {}
    for kind in ("gated", "brain"):
        with tempfile.TemporaryDirectory() as folder:
            found = train(
                dataclasses.replace(study, policy=dataclasses.replace(study.policy, kind=kind)),
                pathlib.Path(folder) / "out",
            )
        episodes = found.summary["episodes"]
        jobs, costs = np.array(episodes["context"]["task/job"]), np.array(episodes["cost"])
        rows[kind] = {
            "before": found.summary["cost"]["before"],
            "by_job": {f"{job:g}": float(costs[jobs == job].mean()) for job in np.unique(jobs)},
            "seconds": found.summary["seconds"],
        }
    return rows


def randomised(seed: int) -> dict:
    """Swing-up of 24 cart-poles of a family: trained on one, on all, and on all with the parameters as a policy input."""
    import jax

    from dso_robotics.robot.play import Player
    from dso_robotics.studies.train import train
    from dso_robotics.studies.train_build import build
    from dso_robotics.studies.train_study import TrainStudy
    from dso_robotics.studies.trained_robot import compiled

    study, rows = dataclasses.replace(TrainStudy.read(STUDIES / "cartpole_randomised.toml"), seed=seed), {}
    studies = {
        "one": dataclasses.replace(study, randomise={}),
        "all": study,
        "told": dataclasses.replace(study, policy=dataclasses.replace(study.policy, see_design=True)),
    }
    family = build(study)
    draws = np.asarray(jax.vmap(family.chain.context.draw)(jax.random.split(jax.random.key(100), 24)))
    for name, one in studies.items():
        with tempfile.TemporaryDirectory() as folder:
            found = train(one, pathlib.Path(folder) / "out")
        player, task = Player(found.task.chain), found.task
        returns = [
            task.steps
            - player.play(
                found.theta,
                found.scaling,
                steps=task.steps,
                model=compiled(family, family.chain.layout.initial, context),
                context=context if name != "one" else None,
            ).cost
            for context in draws
        ]
        rows[name] = {
            "mean": float(np.mean(returns)),
            "worst": float(np.min(returns)),
            "returns": returns,
            "seconds": found.summary["seconds"],
        }
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("sim_to_real", "demonstrations", "two_tasks", "randomised"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    args = parser.parse_args()
    from dso_robotics.cli.jax_setup import prepare_jax

    prepare_jax()
    import mujoco

    machine = f"{os.cpu_count()} cores, python {platform.python_version()}, mujoco {mujoco.__version__}"
    for seed in range(args.first, args.first + args.seeds):
        found = globals()[args.what](seed)
        results = begun(RESULTS) | {"machine": machine}
        results.setdefault(args.what, {})[str(seed)] = found
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        print(json.dumps({"seed": seed} | found), flush=True)


if __name__ == "__main__":
    main()
