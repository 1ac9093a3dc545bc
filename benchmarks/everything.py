"""Everything in one vector, against the usual pipeline and against each part frozen, judged on the true robot.

    python benchmarks/everything.py [--robot cartpole|arm] [--seeds 5] [--only NAME] [--table]

The robots are those of examples/studies/everything.toml (a cart-pole) and examples/studies/everything_arm.toml: weaker drives,
a heavier load and biased, noisy sensors. Every seed has its own log and its own training. What is compared:

- joint: one training finds physics, sensor biases, corrector and policy from the log and its own simulation.
- pipeline: `dso identify` on the log, then `dso estimate` on the identified model (a gain tuned by likelihood), then a policy
  trained on the identified model with the true state. It acts on the estimate.
- frozen_physics, frozen_sensors, frozen_corrector: joint, with one part kept at its start.
- oracle: a policy trained on the true model with the true state, which it also sees when judged.
- untrained: the policy before training, on the estimate.

Every variant is judged in the same twenty episodes of C MuJoCo on the true robot: the same starts and, where it reads sensors,
the same noise. Results are saved as they come, so that a run that is stopped goes on where it ended. They are in
benchmarks/results/everything.json, and docs/everything.md is made from them.
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
from provenance import begun

ROOT = pathlib.Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "everything.json"
STUDIES = {
    "cartpole": ROOT / "examples" / "studies" / "everything.toml",
    "arm": ROOT / "examples" / "studies" / "everything_arm.toml",
}
VARIANTS = ("joint", "pipeline", "oracle", "frozen_physics", "frozen_sensors", "frozen_corrector")
EPISODES = 20
sys.path.insert(0, str(ROOT))


def prepared(robot: str, seed: int, folder: pathlib.Path) -> Any:
    """The study with a log of its own."""
    from datasets.record_lab import recorded
    from dso_robotics.data.log import write_log
    from dso_robotics.studies.train_study import TrainStudy

    write_log(folder / "log.h5", recorded(robot, 100 + seed), dtype=np.float32)
    study = TrainStudy.read(STUDIES[robot])
    cost = dict(study.cost) | {"log": dataclasses.replace(study.cost["log"], log=str(folder / "log.h5"))}
    return dataclasses.replace(study, cost=cost, seed=seed)


def joint(robot: str, study: Any, folder: pathlib.Path) -> dict:
    """One training of the study."""
    import jax
    import jax.numpy as jnp

    from dso_robotics.studies.train import method_of, train

    found = train(study, folder / "out")
    task, real = found.task, found.task.real
    first = method_of(task).init(jax.random.key(study.seed), jnp.asarray(task.chain.layout.initial))
    return {
        "costs": played(task, found.theta, found.scaling, real.model(), real.sensors),
        "untrained": played(task, first.theta, first.memory, real.model(), real.sensors),
        "parameters": {path: row["value"] for path, row in found.summary["parameters"].items()},
    }


def frozen(robot: str, study: Any, folder: pathlib.Path, part: str) -> dict:
    """The study with one part kept at its start."""
    sensors = [declared for declared in study.free if declared.path.startswith("sensor/")]
    physics = [declared for declared in study.free if declared not in sensors]
    changes = {
        "physics": {"free": tuple(sensors)},
        "sensors": {"free": tuple(physics)},
        "corrector": {"flow": {"corrector": ()}},
    }
    return joint(robot, dataclasses.replace(study, **changes[part]), folder)


def with_the_state(study: Any, model: str) -> Any:
    """The study of a policy that sees the state, on a model that is taken as it is."""
    cost = {name: cost for name, cost in study.cost.items() if name != "log"}
    policy = dataclasses.replace(study.policy, observe="state")
    return dataclasses.replace(
        study, model=model, cost=cost, policy=policy, free=(), sensors=None, estimator=None, judge=None
    )


def played(task: Any, theta: Any, scaling: Any, model: Any, sensors: Any) -> list[float]:
    """Costs of the motion of the same episodes for all, on the true robot."""
    from dso_robotics.robot.play import Player

    player = Player(task.chain)
    more = {"steps": task.steps, "model": model, "sensors": sensors}
    episodes = [player.play(np.asarray(theta), scaling, seed=1000 + k, **more) for k in range(EPISODES)]
    assert not any(episode.ended for episode in episodes)
    return [float(episode.cost) for episode in episodes]


def oracle(robot: str, study: Any, folder: pathlib.Path) -> dict:
    """The true model and the true state."""
    import mujoco

    from datasets.record_lab import true_spec
    from dso_robotics.studies.real_robot import real_robot
    from dso_robotics.studies.train import train
    from dso_robotics.studies.train_build import build

    spec = true_spec(robot)
    spec.compile()
    (folder / "true.xml").write_text(spec.to_xml())
    model = mujoco.MjModel.from_xml_path(str(folder / "true.xml"))
    real = real_robot(study, build(study).chain).model()
    for seed in range(5):
        np.testing.assert_allclose(acceleration(model, seed), acceleration(real, seed), rtol=1e-4)
    found = train(with_the_state(study, str(folder / "true.xml")), folder / "out")
    costs = played(found.task, found.theta, found.scaling, model, None)
    return {"costs": costs}


def acceleration(model: Any, seed: int) -> Any:
    """Of a state and a control drawn with `seed`."""
    import mujoco

    data, rng = mujoco.MjData(model), np.random.default_rng(seed)
    for name in ("qpos", "qvel", "ctrl"):
        getattr(data, name)[:] = rng.uniform(-1.0, 1.0, len(getattr(data, name)))
    mujoco.mj_forward(model, data)
    return data.qacc


def pipeline(robot: str, study: Any, folder: pathlib.Path) -> dict:
    """Identify, tune the filter, train with the state; then act on the estimate."""
    import jax.numpy as jnp

    from dso_robotics.robot.estimator import Estimator
    from dso_robotics.studies.estimate import estimate
    from dso_robotics.studies.estimate_study import EstimateStudy
    from dso_robotics.studies.identify import identify
    from dso_robotics.studies.study import IdentifyStudy
    from dso_robotics.studies.train import train
    from dso_robotics.studies.train_build import build

    log = str(folder / "log.h5")
    found = identify(IdentifyStudy(model=study.model, logs=(log,), free=study.free), folder / "identified").summary
    values = {path: row["value"] for path, row in found["parameters"].items()}
    free = tuple(dataclasses.replace(declared, init=values[declared.path]) for declared in study.free)
    biases = tuple(declared for declared in free if declared.path.startswith("sensor/"))
    model = str(folder / "identified" / "model.xml")
    tuned = EstimateStudy(model=model, logs=(log,), free=biases, window=1.0, corrector="gain")
    summary = estimate(tuned, folder / "estimated")
    values |= {path: row["value"] for path, row in summary["parameters"].items()}
    trained = train(with_the_state(study, model), folder / "out")
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
    costs = played(task, theta, trained.scaling, task.real.model(), task.real.sensors)
    return {"costs": costs, "parameters": values}


def run(robot: str, seeds: int, only: list[str]) -> dict:
    """Every variant for every seed that is not there yet."""
    makers = {"joint": joint, "pipeline": pipeline, "oracle": oracle}
    makers |= {f"frozen_{part}": _frozen(part) for part in ("physics", "sensors", "corrector")}
    for seed in range(seeds):
        for name in only or VARIANTS:
            if name in saved().get(robot, {}).get("rows", {}).get(str(seed), {}):
                continue
            began = time.process_time()
            with tempfile.TemporaryDirectory() as folder:
                found = makers[name](robot, prepared(robot, seed, pathlib.Path(folder)), pathlib.Path(folder))
            found["cpu"] = time.process_time() - began
            # Another process may have saved rows meanwhile.
            every = begun(RESULTS)
            here = every.setdefault(robot, {"rows": {}})
            here["machine"] = machine()
            here["rows"].setdefault(str(seed), {})[name] = found
            RESULTS.write_text(json.dumps(every, indent=1) + "\n")
            print(robot, seed, name, f"{np.mean(found['costs']):.2f}", f"{found['cpu']:.0f} s", flush=True)
    return saved()


def saved() -> dict:
    """The results that are there, by robot."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def _frozen(part: str) -> Any:
    return lambda robot, study, folder: frozen(robot, study, folder, part)


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
    parser.add_argument("--robot", choices=tuple(STUDIES), default="cartpole")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", action="append", default=[], choices=VARIANTS)
    parser.add_argument("--table", action="store_true", help="only write docs/everything.md again")
    args = parser.parse_args()
    from dso_robotics.cli.jax_setup import prepare_jax

    prepare_jax()
    found = saved() if args.table else run(args.robot, args.seeds, args.only)
    from everything_page import page

    from datasets.record_lab import LABS

    truths = {robot: lab.truth for robot, lab in LABS.items()}
    (ROOT / "docs" / "everything.md").write_text(page(found, truths))


if __name__ == "__main__":
    main()
