"""Everything in one vector, against the usual pipeline and against each part frozen, judged on the true robot.

    python benchmarks/everything.py [--seeds 5] [--only NAME] [--table]

The cart-pole of examples/studies/everything.toml has a weaker drive, a heavier pole and biased, noisy sensors. Every seed has
its own log, its own training and its own noise on the true robot. What is compared:

- joint: one training finds physics, sensor biases, corrector and policy from the log and its own simulation.
- pipeline: `dso identify` on the log, then `dso estimate` on the identified model (a Kalman gain tuned by likelihood), then a
  policy trained on the identified model with the true state. It acts on the estimate.
- frozen_physics, frozen_sensors, frozen_corrector: joint, with one part kept at its start.
- oracle: a policy trained on the true model with the true state, which it also sees when judged.
- untrained: the policy before training, on the estimate.

Returns are means over ten episodes of C MuJoCo; 300 is the most. Results are saved as they come, so that a run that is stopped
goes on where it ended. They are in benchmarks/results/everything.json, and docs/everything.md is made from them.
"""

import argparse
import dataclasses
import json
import pathlib
import platform
import sys
import tempfile
import time
from typing import Any

import numpy as np
from provenance import command

ROOT = pathlib.Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "everything.json"
STUDY = ROOT / "examples" / "studies" / "everything.toml"
VARIANTS = ("joint", "pipeline", "oracle", "frozen_physics", "frozen_sensors", "frozen_corrector")
EPISODES = 10
sys.path.insert(0, str(ROOT))


def prepared(seed: int, folder: pathlib.Path) -> Any:
    """The study with a log of its own."""
    from datasets.record_lab import lab
    from dso_robotics.data.log import write_log
    from dso_robotics.studies.train_study import TrainStudy

    write_log(folder / "log.h5", lab(100 + seed), dtype=np.float32)
    study = TrainStudy.read(STUDY)
    cost = dict(study.cost) | {"log": dataclasses.replace(study.cost["log"], log=str(folder / "log.h5"))}
    judge = dataclasses.replace(study.judge, episodes=EPISODES)
    return dataclasses.replace(study, cost=cost, seed=seed, judge=judge)


def joint(study: Any, folder: pathlib.Path) -> dict:
    """One training of the study."""
    from dso_robotics.studies.train import train

    found = train(study, folder / "out").summary
    return {
        "returns": found["judge"]["return"],
        "untrained": [found_steps(study) - cost for cost in found["judge"]["before"]],
        "parameters": {path: row["value"] for path, row in found["parameters"].items()},
        "seconds": found["seconds"],
    }


def found_steps(study: Any) -> int:
    """Control steps of an episode."""
    return round(study.seconds / study.control_step)


def frozen(study: Any, folder: pathlib.Path, part: str) -> dict:
    """The study with one part kept at its start."""
    sensors = [declared for declared in study.free if declared.path.startswith("sensor/")]
    physics = [declared for declared in study.free if declared not in sensors]
    changes = {
        "physics": {"free": tuple(sensors)},
        "sensors": {"free": tuple(physics)},
        "corrector": {"flow": {"corrector": ()}},
    }
    return joint(dataclasses.replace(study, **changes[part]), folder)


def with_the_state(study: Any, model: str) -> Any:
    """The study of a policy that sees the state, on a model that is taken as it is."""
    cost = {name: cost for name, cost in study.cost.items() if name != "log"}
    policy = dataclasses.replace(study.policy, observe="state")
    return dataclasses.replace(
        study, model=model, cost=cost, policy=policy, free=(), sensors=None, estimator=None, judge=None
    )


def played(task: Any, theta: Any, scaling: Any, model: Any, sensors: Any) -> list[float]:
    """Returns on the true robot."""
    from dso_robotics.robot.play import Player

    player = Player(task.chain)
    more = {"steps": task.steps, "model": model, "sensors": sensors}
    episodes = [player.play(np.asarray(theta), scaling, seed=1000 + k, **more) for k in range(EPISODES)]
    return [float(task.steps - e.cost * task.steps / max(len(e.terms), 1)) for e in episodes]


def oracle(study: Any, folder: pathlib.Path) -> dict:
    """The true model and the true state."""
    import mujoco

    from dso_robotics.studies.real_robot import real_robot
    from dso_robotics.studies.train import train
    from dso_robotics.studies.train_build import build

    real = real_robot(study, build(study).chain)
    (folder / "true.xml").write_text(true_xml())
    model = mujoco.MjModel.from_xml_path(str(folder / "true.xml"))
    np.testing.assert_allclose(model.body_mass, real.model().body_mass)
    found = train(with_the_state(study, str(folder / "true.xml")), folder / "out")
    returns = played(found.task, found.theta, found.scaling, model, None)
    return {"returns": returns, "seconds": found.summary["seconds"]}


def true_xml() -> str:
    """The true cart-pole as MJCF."""
    from datasets.record_lab import true_spec

    spec = true_spec()
    spec.compile()
    return spec.to_xml()


def pipeline(study: Any, folder: pathlib.Path) -> dict:
    """Identify, tune the filter, train with the state; then act on the estimate."""
    import jax.numpy as jnp

    from dso_robotics.robot.estimator import Estimator
    from dso_robotics.studies.estimate import estimate
    from dso_robotics.studies.estimate_study import EstimateStudy
    from dso_robotics.studies.identify import identify
    from dso_robotics.studies.study import IdentifyStudy
    from dso_robotics.studies.train import train
    from dso_robotics.studies.train_build import build

    begun, log = time.perf_counter(), str(folder / "log.h5")
    found = identify(IdentifyStudy(model=study.model, logs=(log,), free=study.free), folder / "identified").summary
    values = {path: row["value"] for path, row in found["parameters"].items()}
    free = tuple(dataclasses.replace(declared, init=values[declared.path]) for declared in study.free)
    biases = tuple(declared for declared in free if declared.path.startswith("sensor/"))
    model = str(folder / "identified" / "model.xml")
    tuned = EstimateStudy(model=model, logs=(log,), free=biases, window=1.0, corrector="gain")
    summary = estimate(tuned, folder / "estimated")
    values |= {path: row["value"] for path, row in summary["parameters"].items()}
    trained = train(with_the_state(study, model), folder / "out")
    seconds = time.perf_counter() - begun
    # The parts together: a system whose theta holds what each step found.
    free = tuple(dataclasses.replace(declared, init=values[declared.path]) for declared in study.free)
    task = build(dataclasses.replace(study, free=free))
    chain, learned = task.chain, Estimator.load(folder / "estimated").learned
    gain = learned.weights.reshape(chain.filter.corrector.k, -1)
    gain = gain * learned.scales.change[:, None] / learned.scales.innovation
    scales, theta = chain.filter.scales, jnp.asarray(chain.layout.initial)
    policy = trained.task.chain.layout.split(jnp.asarray(trained.theta))["policy"]
    theta = theta.at[chain.layout.where("policy")].set(policy)
    here = chain.layout.where("corrector").start
    theta = theta.at[here : here + gain.size].set((gain * scales.innovation / scales.change[:, None]).ravel())
    returns = played(task, theta, trained.scaling, task.real.model(), task.real.sensors)
    return {"returns": returns, "parameters": values, "seconds": {"total": seconds}}


def run(seeds: int, only: list[str]) -> dict:
    """Every variant for every seed that is not there yet."""
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"rows": {}}
    found |= {"machine": machine(), "command": command()}
    makers = {"joint": joint, "pipeline": pipeline, "oracle": oracle}
    makers |= {f"frozen_{part}": _frozen(part) for part in ("physics", "sensors", "corrector")}
    for seed in range(seeds):
        for name in only or VARIANTS:
            row = found["rows"].setdefault(str(seed), {})
            if name in row:
                continue
            with tempfile.TemporaryDirectory() as folder:
                row[name] = makers[name](prepared(seed, pathlib.Path(folder)), pathlib.Path(folder))
            # Another process may have saved rows meanwhile.
            saved = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"rows": {}}
            saved["rows"].setdefault(str(seed), {})[name] = row[name]
            found = found | {"rows": saved["rows"]}
            RESULTS.write_text(json.dumps(found, indent=1) + "\n")
            print(seed, name, f"{np.mean(row[name]['returns']):.1f}", row[name]["seconds"], flush=True)
    return found


def _frozen(part: str) -> Any:
    return lambda study, folder: frozen(study, folder, part)


def machine() -> dict:
    """What the numbers were made on."""
    import jax
    import mujoco

    import dso_robotics

    return {
        "dso": dso_robotics.__version__,
        "mujoco": mujoco.__version__,
        "jax": jax.__version__,
        "python": platform.python_version(),
        "processor": platform.processor() or platform.machine(),
    }


def main() -> None:
    """Run, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", action="append", default=[], choices=VARIANTS)
    parser.add_argument("--table", action="store_true", help="only write docs/everything.md again")
    args = parser.parse_args()
    import jax

    jax.config.update("jax_enable_x64", True)
    found = json.loads(RESULTS.read_text()) if args.table else run(args.seeds, args.only)
    from everything_page import page

    (ROOT / "docs" / "everything.md").write_text(page(found))


if __name__ == "__main__":
    main()
