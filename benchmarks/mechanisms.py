"""Real mechanisms: published parameters compared with ours, by the error on runs that ours were not fitted to.

    python benchmarks/mechanisms.py              # all, writes benchmarks/results/mechanisms.json and docs/mechanisms.md
    python benchmarks/mechanisms.py --only multiarm_single
    python benchmarks/mechanisms.py --table      # only write docs/mechanisms.md again

The examples fit ours to the runs that they name. The same code then simulates the published and the fitted model, from the same
recorded first samples of the held-out runs, free-running over the same time. Published parameters have the published friction
law, not a similar one of MuJoCo. Recordings are fetched, or read from DSO_DATA.
"""

import argparse
import dataclasses
import importlib.metadata
import importlib.util
import json
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import mujoco
import numpy as np
from mechanisms_page import page
from mechanisms_published import PUBLISHED, Published
from provenance import begun

from dso_robotics.data.log import Log, write_log
from dso_robotics.data.match import match_channels
from dso_robotics.data.registry import fetch
from dso_robotics.data.rollout import Rollout
from dso_robotics.data.windows import cut
from dso_robotics.parameters.path import parse
from dso_robotics.parameters.vector import ParameterVector
from dso_robotics.physics.batch import BatchEngine
from dso_robotics.physics.friction import FrictionEngine, Law
from dso_robotics.robot import start
from dso_robotics.robot.prediction import CPrediction
from dso_robotics.studies.identify import identify
from dso_robotics.studies.study import IdentifyStudy

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "mechanisms.json"


def example(name: str) -> ModuleType:
    """Imports a file of examples/, which is not a package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


demo, free_swing, servo, torque_pendulum = map(example, ("demo", "free_swing", "servo", "torque_pendulum"))


@dataclasses.dataclass(frozen=True)
class Mechanism:
    """A recording, its held-out runs, and the length of a free-running prediction [s] (None: to the end of the run).

    fit: writes the fitted model to a folder; returns its path, the fitted numbers and their friction law, if any.
    """

    log: Callable[[], Log]
    hold_out: str
    seconds: float | None
    fit: Callable[[Path], tuple[Path, dict[str, float], Law | None]]


def by_summary(summary: dict, folder: Path) -> tuple[Path, dict[str, float], None]:
    """The result of an identification in the folder `result`."""
    return folder / "result" / "model.xml", {k: v["value"] for k, v in summary["parameters"].items()}, None


def fit_arm(folder: Path) -> tuple[Path, dict[str, float], None]:
    """The fit of `make demo`."""
    write_log(folder / "arm.h5", fetch("dfki_double_pendulum_A0"))
    study = IdentifyStudy(
        model=str(ROOT / "models/two_joint_arm.xml"),
        logs=(str(folder / "arm.h5"),),
        free=tuple(map(parse, demo.FREE)),
        hold_out="03,05,11,13",
        window=0.8,
        score_window=0.5,
    )
    return by_summary(identify(study, folder / "result").summary, folder)


def fit_servo(folder: Path) -> tuple[Path, dict[str, float], Law]:
    """The fit of examples/servo.py, with its numbers written into the model."""
    numbers = servo.main()["parameters"]
    spec = mujoco.MjSpec.from_file(str(ROOT / servo.MODEL))
    values = list(numbers.values())
    stall, back_emf, damping, dry, armature, tilt = values[:6]
    joint = spec.joint("horn")
    joint.damping[0], joint.frictionloss, joint.armature = damping, dry, armature
    joint.userdata = values[6:]
    spec.body("arm").ipos[0] = tilt
    spec.actuator("target").gainprm[0], spec.actuator("feedback").gainprm[1] = stall, -stall
    spec.actuator("powered").gainprm[2] = -back_emf
    spec.tendon("drive").actfrcrange = [-stall, stall]
    spec.compile()
    (folder / "model.xml").write_text(spec.to_xml())
    return folder / "model.xml", numbers, servo.gearbox


MECHANISMS = {
    "dfki_double_pendulum_A0": Mechanism(lambda: fetch("dfki_double_pendulum_A0"), "03,05,11,13", 0.5, fit_arm),
    "dfki_simple_pendulum": Mechanism(
        torque_pendulum.recordings,
        torque_pendulum.HOLD_OUT,
        0.5,
        lambda folder: by_summary(torque_pendulum.main(str(folder / "result")), folder),
    ),
    "multiarm_single": Mechanism(
        lambda: fetch("multiarm_single"),
        free_swing.ARMS["single"]["hold_out"],
        None,
        lambda folder: by_summary(free_swing.main("single", str(folder / "result")), folder),
    ),
    "multiarm_double": Mechanism(
        lambda: fetch("multiarm_double"),
        free_swing.ARMS["double"]["hold_out"],
        None,
        lambda folder: by_summary(free_swing.main("double", str(folder / "result")), folder),
    ),
    "bam_xl330": Mechanism(lambda: fetch("bam_xl330"), servo.HOLD_OUT, None, fit_servo),
}


def score(model: mujoco.MjModel, law: Law | None, rollouts: list[Rollout], seconds: float | None) -> dict:
    """Free-running errors of the position channels [rad], by run and over all windows.

    mean, median: of the windows' root-mean-square errors; mean_absolute: of all samples.
    """
    runs, every, absolute = {}, [], []
    for rollout in rollouts:
        channels = match_channels(Log("", "", "", (rollout,)), model)
        whole = float(rollout.time[-1] - rollout.time[0])
        windows = cut(
            [rollout], channels, timestep=model.opt.timestep, seconds=seconds or whole, overlap=0.5 if seconds else 0.0
        )
        windows = windows.complete() or windows
        engine = BatchEngine(model) if law is None else FrictionEngine(model, law)
        prediction = CPrediction(ParameterVector((), model), windows, engine=engine)
        error = prediction.predict(np.zeros(0), start.guess(windows, model)) - windows.measured
        positions = [i for i, unit in enumerate(channels.sensor_units) if unit == "rad"]
        error = error[:, 1:, positions]  # a window's first sample is where it starts
        rmse = np.sqrt(np.nanmean(error**2, axis=1))
        every.append(rmse)
        absolute.append(np.nanmean(np.abs(error), axis=(0, 1)))
        runs[rollout.name] = {"mean": rmse.mean(0).tolist(), "median": np.median(rmse, axis=0).tolist()}
    rmse = np.concatenate(every)
    return {
        "channels": [channels.sensor_names[i] for i in positions],
        "mean": rmse.mean(0).tolist(),
        "median": np.median(rmse, axis=0).tolist(),
        "mean_absolute": np.mean(absolute, axis=0).tolist(),
        "windows": len(rmse),
        "runs": runs,
    }


def examine(name: str) -> dict:
    """Fit, then score ours and every published set on the held-out runs."""
    mechanism = MECHANISMS[name]
    log = mechanism.log()
    names = mechanism.hold_out.split(",")
    held_out = [log[run] for run in names]
    rest = [run for run in log.rollouts if run.name not in names]
    found: dict = {"hold_out": names, "seconds": mechanism.seconds, "models": {}}
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        path, numbers, law = mechanism.fit(Path(folder))
        found["fit_seconds"] = round(time.perf_counter() - began, 1)
        ours = Published("ours", mujoco.MjModel.from_xml_path(str(path)), numbers, law)
    for entry in (*PUBLISHED[name](), ours):
        errors = score(entry.model, entry.law, held_out, mechanism.seconds)
        fitted = score(entry.model, entry.law, rest, mechanism.seconds)
        found["models"][entry.name] = {"parameters": entry.parameters, **errors, "fitted": fitted}
        print(f"{name}: {entry.name}: mean {errors['mean']}, median {errors['median']}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", default=[], choices=MECHANISMS, help="this mechanism alone")
    parser.add_argument("--table", action="store_true", help="run nothing, write the page")
    args = parser.parse_args()
    found = begun(RESULTS, {"mechanisms": {}})
    if not args.table:
        for name in args.only or MECHANISMS:
            found["mechanisms"][name] = examine(name)
            found["versions"] = {p: importlib.metadata.version(p) for p in ("mujoco", "numpy", "scipy")}
            found["versions"]["python"] = platform.python_version()
            RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    (ROOT / "docs" / "mechanisms.md").write_text(page(found))


if __name__ == "__main__":
    main()
