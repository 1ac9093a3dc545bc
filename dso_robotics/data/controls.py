"""Controls for a recording: from an excitation signal, or played back from a file."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import mujoco
import numpy as np

from dso_robotics.data.convert import convert_table
from dso_robotics.data.excitation import excite
from dso_robotics.data.formats import is_log_file
from dso_robotics.data.log import read_log
from dso_robotics.data.match import actuator_names, values_by_channel
from dso_robotics.data.resample import resample
from dso_robotics.data.rollout import Array, listed, nearest
from dso_robotics.errors import DsoError


def excitations(
    model: mujoco.MjModel,
    rng: np.random.Generator,
    kind: str,
    *,
    seconds: float,
    rollouts: int = 1,
    every: int = 1,
    amplitude: float | Mapping[str, float] | None = None,
    top: float = 2.0,
) -> list[tuple[str, Array]]:
    """Controls for `record`: `rollouts` excitations of `kind`, each `seconds` long, called "00", "01", ...

    `kind` is one of excitation.KINDS, or "none" for zeros. The limits are each actuator's ctrlrange, or ±`amplitude` (one
    number, or one by actuator name) clipped to that range. `top` [Hz] is explained in `excite`. Raises DsoError for an
    actuator with neither limit.
    """
    names, time = actuator_names(model), sample_times(model, seconds, every)
    if kind == "none":
        return [(f"{i:02d}", np.zeros((len(time), model.nu))) for i in range(rollouts)]
    if not names:
        raise DsoError("the model has no actuators to excite; record its free motion with `--excite none`.")
    low, high = model.actuator_ctrlrange.T.copy()
    limited = model.actuator_ctrllimited.astype(bool)
    low[~limited], high[~limited] = -np.inf, np.inf
    if amplitude is not None:
        given = amplitude if isinstance(amplitude, Mapping) else {"*": amplitude}
        reach = values_by_channel(given, names, "amplitude")
        reach[reach == 0] = np.inf
        low, high = np.maximum(low, -reach), np.minimum(high, reach)
    open_ended = [name for name, a, b in zip(names, low, high, strict=True) if not np.isfinite([a, b]).all()]
    if open_ended:
        raise DsoError(
            f"actuator {open_ended[0]!r} has no ctrlrange in the model, so the size of its excitation is unknown; "
            "give it with --amplitude, or set ctrlrange."
        )
    return [(f"{i:02d}", excite(kind, rng, time, low, high, top=top)) for i in range(rollouts)]


def sample_times(model: mujoco.MjModel, seconds: float, every: int = 1) -> Array:
    """Times (T,) [s] of the samples of a recording `seconds` long. Raises DsoError if there are fewer than two samples."""
    interval = every * model.opt.timestep
    count = round(seconds / interval) if np.isfinite(seconds) else 0
    if count < 2:
        raise DsoError(f"a recording of {seconds:g} s has fewer than two samples of {interval:g} s; make it longer.")
    return np.arange(count) * interval


def recorded_controls(model: mujoco.MjModel, path: str | Path, every: int = 1) -> list[tuple[str, Array]]:
    """Controls for `record` from a file, held between its samples and sampled every `every` steps of `model`.

    A log gives one control sequence per rollout, with the rollout's name. A table, of any kind that `dso convert` reads,
    gives one; its columns are `time` [s] and one per actuator, with the actuator's name.
    Raises DsoError for a file that cannot be read or lacks an actuator.
    """
    names, path = actuator_names(model), Path(path)
    if not names:
        raise DsoError(f"{path}: the model has no actuators, so there is nothing to play back; use `--excite none`.")
    rollouts = read_log(path).rollouts if is_log_file(path) else convert_table(path, names).rollouts
    controls = []
    for rollout in rollouts:
        missing = [name for name in names if name not in rollout.ctrl_names]
        if missing or rollout.ctrl is None:
            raise DsoError(
                f"{path}: rollout {rollout.name!r} has no control for actuator {missing[0]!r}."
                f"{nearest(missing[0], rollout.ctrl_names)} It has {listed(rollout.ctrl_names)}; the model has "
                f"{listed(names)}."
            )
        columns = [rollout.ctrl_names.index(name) for name in names]
        # Only the controls: sensors may be too sparse for the new grid.
        bare = replace(rollout, sensordata=None, sensor_names=(), sensor_units=(), qpos=None, qvel=None)
        held = resample(bare, every * model.opt.timestep).ctrl
        assert held is not None
        controls.append((rollout.name, held[:, columns]))
    return controls
