"""A plan as files: an HDF5 file that `dso simulate` plays, a CSV file for each run, and a summary."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from dso_robotics import __version__
from dso_robotics.data.atomic import atomic_file
from dso_robotics.data.log import Log, write_log
from dso_robotics.data.rollout import Rollout
from dso_robotics.physics.unit import actuator_unit
from dso_robotics.studies.excite import Plan
from dso_robotics.studies.folder import finite

_PLAIN = (2, 3)  # slides and hinges, in mjtJoint


def summary(plan: Plan) -> dict[str, Any]:
    """What the plan is expected to come to, JSON-ready. Half-widths are of 95% intervals; None is unknown."""
    study = plan.study
    rows = {
        name: {
            "value": row.value,
            "unit": row.unit,
            "half_width_before": row.before,
            "half_width_after": row.after,
            "visible": not row.hidden,
            "why_not": row.hidden,
        }
        for name, row in plan.table.items()
    }
    runs = {
        run.name: {
            "trials": run.trials,
            "message": run.message,
            "narrower_than_random": math.exp(run.random - run.score),
            "random_motions": run.compared,
        }
        for run in plan.runs
    }
    told = {
        "command": "excite",
        "version": __version__,
        "study": {k: v for k, v in study.as_dict().items() if k != "command"},
        "seconds": float(plan.time[-1]),
        "parameters": rows,
        "runs": runs,
        "noise": dict(zip(plan.channels, map(float, plan.sigma), strict=True)),
        "window": plan.window,
        "halved": plan.halved,
        "simulated_steps": plan.steps,
        "notes": list(plan.notes),
    }
    return finite(told)


def log_of(plan: Plan) -> Log:
    """The plan as a log: controls and the expected states. It has no sensor readings, so nothing takes it for a recording."""
    model, rollouts = plan.robot.mj, []
    for run in plan.runs:
        rollouts.append(
            Rollout(
                name=run.name,
                time=plan.time,
                ctrl=run.ctrl,
                ctrl_names=plan.actuators,
                ctrl_units=tuple(actuator_unit(model, i) for i in range(model.nu)),
                qpos=run.path[:, : model.nq],
                qvel=run.path[:, model.nq : model.nq + model.nv],
            )
        )
    source = f"plan of dso excite for {Path(str(plan.robot.source)).name}; not a recording"
    return Log("", source, "not stated", tuple(rollouts), {"plan": json.dumps(summary(plan))})


def csv_paths(out: Path, runs: int) -> list[Path]:
    """The names of the CSV files beside `out`."""
    return [out.with_suffix(".csv")] if runs == 1 else [out.with_name(f"{out.stem}-{i:02d}.csv") for i in range(runs)]


def write_plan(plan: Plan, out: Path) -> list[Path]:
    """Write `out` and a CSV file for each run beside it: all of them, or none.

    Raises:
      DsoError: a file cannot be written.
    """
    written: list[Path] = []
    try:
        for path, run in zip(csv_paths(out, len(plan.runs)), plan.runs, strict=True):
            with atomic_file(path) as temporary:
                temporary.write_text(_csv(plan, run.ctrl, run.path), "utf-8")
            written.append(path)
        write_log(out, log_of(plan))
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise
    return [out, *written]


def _csv(plan: Plan, ctrl: np.ndarray, path: np.ndarray) -> str:
    """Time, controls, and the expected position and velocity of each hinge and slide."""
    model = plan.robot.mj
    joints = [j for j in range(model.njnt) if int(model.jnt_type[j]) in _PLAIN]
    names = [model.joint(j).name or f"joint{j}" for j in joints]
    header = [
        "time",
        *plan.actuators,
        *(f"expected {n} position" for n in names),
        *(f"expected {n} velocity" for n in names),
    ]
    position = path[:, [int(model.jnt_qposadr[j]) for j in joints]]
    velocity = path[:, [model.nq + int(model.jnt_dofadr[j]) for j in joints]]
    rows = np.column_stack([plan.time, ctrl, position, velocity])
    lines = [",".join(f"{value:.10g}" for value in row) for row in rows + 0.0]
    return "\n".join([",".join(f'"{name}"' if "," in name else name for name in header), *lines]) + "\n"
