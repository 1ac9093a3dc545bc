"""An estimator as one C99 header that uses MuJoCo's C API."""

import math
from typing import Any

import mujoco
import numpy as np

from dso_robotics.data.match import quaternion_places
from dso_robotics.errors import DsoError
from dso_robotics.parameters.vector import sensor_ids
from dso_robotics.robot import c_source as c
from dso_robotics.robot.corrector import ConstantGain, LinearCorrector, MlpCorrector, RecurrentCorrector
from dso_robotics.robot.correctors.kalman import KalmanCorrector
from dso_robotics.robot.estimator import Estimator
from dso_robotics.robot.estimator_space import Space
from dso_robotics.robot.innovation_gate import PATIENCE, chi_squared_quantile
from dso_robotics.robot.kalman_c import kalman_constants
from dso_robotics.robot.kalman_estimator import KalmanEstimator

_KINDS = (ConstantGain, LinearCorrector, MlpCorrector, RecurrentCorrector, KalmanCorrector)
_JOINTPOS, _JOINTVEL = int(mujoco.mjtSensor.mjSENS_JOINTPOS), int(mujoco.mjtSensor.mjSENS_JOINTVEL)


def estimator_header(estimator: Estimator, model_file: str, *, source: str, guard: str = "DSO_ESTIMATOR_H") -> str:
    """The text of the header: the estimator's numbers, and the code of `c/estimator.h` that estimates with them.

    model_file: name of the model that is exported beside it.
    source: what made it, for its first comment.

    Raises:
      DsoError: its corrector is of a kind that C code does not compute.
    """
    model, learned = estimator.model, estimator.learned
    corrector = learned.corrector
    if type(corrector) not in _KINDS:
        known = ", ".join(kind.kind for kind in _KINDS)
        raise DsoError(f"{source}: the corrector {corrector.kind!r} has no C code; learn one that has: {known}.")
    space = Space(model)
    ids = [int(i) for i in sensor_ids(model, learned.addresses)]
    sensors = list(dict.fromkeys(model.sensor(i).name for i in ids))
    oldest = float(learned.delay.max(initial=0.0))
    timestep = learned.interval / learned.substeps
    places = quaternion_places(model, learned.addresses)
    sizes = {
        "NQ": space.nq,
        "NV": space.nv,
        "NA": space.na,
        "NU": int(model.nu),
        "NSENSORDATA": int(model.nsensordata),
        "NY": corrector.ny,
        "NF": corrector.nf,
        "SENSORS": len(sensors),
        "STAGE": max(int(model.sensor_needstage[i]) for i in ids),
        "SUBSTEPS": learned.substeps,
        "INTERVAL": learned.interval,
        "LATE": oldest > 0,
        "LATE_MOST": oldest,
        "PAST": math.ceil(oldest / timestep) + 4 if oldest else 1,
        "LINEAR": isinstance(corrector, LinearCorrector),
        "MLP": isinstance(corrector, MlpCorrector),
        "UNITS": corrector.units,
        "MEMORY": corrector.memory_size,
        "GATE": bool(learned.gate),
        "PATIENCE": PATIENCE,
        "QUATERNIONS": len(places),
        **space.counts(),
    }
    head = _head(estimator, model_file, source, guard)
    shared = [
        c.strings("dso_estimator_channels", learned.names),
        c.strings("dso_estimator_controls", estimator.ctrl_names),
        c.strings("dso_estimator_sensors", sensors),
        c.integers("dso_estimator_sensordata", learned.addresses),
        c.integers("dso_estimator_quaternion", places),
        *(c.doubles(f"dso_estimator_{name}", values) for name, values in space.limits().items()),
        *(c.doubles(f"dso_estimator_{name}", getattr(learned, name)) for name in ("scale", "bias")),
    ]
    integers = _integers(model, ids, sensors, space)
    if isinstance(estimator, KalmanEstimator):
        more, arrays = kalman_constants(estimator, source)
        kept = ("NQ", "NV", "NA", "NU", "NSENSORDATA", "NY", "SENSORS", "SUBSTEPS", "INTERVAL", "JOINTS")
        sizes = {name: sizes[name] for name in kept} | more
        shared += [
            c.integers(f"dso_estimator_{name}", integers[name]) for name in ("member", "qpos_of", "qvel_of", "joint")
        ]
        return "\n".join(
            [
                head,
                c.defined("DSO_ESTIMATOR", sizes),
                "",
                *shared,
                *arrays,
                "",
                c.fixed("estimator_space.h"),
                c.fixed("kalman.h"),
            ]
        )
    freedoms = range(1, corrector.ny + 1)
    limits = [chi_squared_quantile(learned.gate, k) if learned.gate else np.inf for k in freedoms]
    arrays = [
        *shared,
        *(c.integers(f"dso_estimator_{name}", values) for name, values in integers.items()),
        *(c.doubles(f"dso_estimator_{name}", getattr(learned, name)) for name in ("delay", "sigma")),
        c.doubles("dso_estimator_noise", learned.spread),
        c.doubles("dso_estimator_innovation", learned.scales.innovation),
        c.doubles("dso_estimator_change", learned.scales.change),
        c.doubles("dso_estimator_centre", learned.scales.centre),
        c.doubles("dso_estimator_state_scale", learned.scales.state),
        c.doubles("dso_estimator_limits", [np.inf, *limits]),
        c.doubles("dso_estimator_covariance", [] if learned.covariance is None else learned.covariance),
        c.doubles("dso_estimator_weights", learned.weights),
    ]
    return "\n".join(
        [head, c.defined("DSO_ESTIMATOR", sizes), "", *arrays, "", c.fixed("estimator_space.h"), c.fixed("estimator.h")]
    )


def _head(estimator: Estimator, model_file: str, source: str, guard: str) -> str:
    """The first comment, the guard and what is included."""
    learned, covariance = estimator.learned, ""
    if not learned.corrector.linearises:
        covariance = (
            "   dso_estimator_covariance: of the state's error in the tangent space, if it was known; else one 0.\n"
        )
    told = (
        f"A state estimator learned by dso, {c.comment(source)}: corrector {learned.corrector.kind}, one update every "
        f"{learned.interval:g} s.\n\n   Readings: {c.comment(', '.join(learned.names))}.\n"
        f"   Controls: {c.comment(', '.join(estimator.ctrl_names))}.\n"
        f"{covariance}\n   How it is called is told below, before the code: look for mj_loadXML."
    )
    head = f"/* {told} */\n\n#ifndef {guard}\n#define {guard}\n\n#include <math.h>\n#include <stddef.h>\n"
    return head + f"#include <mujoco/mujoco.h>\n\n#define DSO_ESTIMATOR_MODEL {c.text(model_file)}"


def _integers(model: mujoco.MjModel, ids: list[int], sensors: list[str], space: Space) -> dict[str, Any]:
    """Arrays of integers by name."""

    def addresses(kind: int, table: Any) -> list[int]:
        return [int(table[model.sensor_objid[i]]) if int(model.sensor_type[i]) == kind else -1 for i in ids]

    return {
        "member": [sensors.index(model.sensor(i).name) for i in ids],
        "qpos_of": addresses(_JOINTPOS, model.jnt_qposadr),
        "qvel_of": addresses(_JOINTVEL, model.jnt_dofadr),
        **space.entries(),
    }
