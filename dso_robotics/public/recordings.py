"""Logs from any source: log files, tables, the registry of real recordings, a simulation."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dso_robotics.data.log import Log, merge_logs, write_log
from dso_robotics.data.log import read_log as read
from dso_robotics.errors import DsoError
from dso_robotics.public.sheet import block, html_table, text_table
from dso_robotics.public.wording import speaking_python

if TYPE_CHECKING:
    import mujoco

    from dso_robotics.data.registry import Recording
    from dso_robotics.physics.model import Robot

Path_ = str | os.PathLike[str]
Mapping_ = str | Sequence[str] | Mapping[str, str]


def read_log(
    *files: Path_ | Sequence[Path_],
    ctrl: Mapping_ = (),
    sensors: Mapping_ = (),
    time: str = "time",
    rate: float | None = None,
    qpos: Mapping_ = (),
    qvel: Mapping_ = (),
    model: "Path_ | mujoco.MjSpec | mujoco.MjModel | Robot | None" = None,
    resample: float | None = None,
    header: bool = True,
    header_line: int | None = None,
    delimiter: str = "",
    decimal: str = "",
    encoding: str = "",
    sort: bool = False,
    drop_repeats: bool = False,
    trim: bool = False,
    split_gap: float | None = None,
    split_restarts: bool = False,
    hold_ctrl: bool = False,
    scale: Mapping[str, float | tuple[float, str]] | None = None,
    source: str = "",
    licence: str = "",
) -> Log:
    """One log with the rollouts of all `files`: log files (.h5), or tables with a mapping to channels.

    Tables are text files of any usual dialect, JSON, NPZ, NPY, MAT and HDF5 files; `dso convert --help` says more.

    ctrl, sensors: the column of each actuator and sensor, in the form of `dso convert`, "tau1=torque*0.5:N*m", or as a
      dict, {"tau1": "torque*0.5:N*m"}.
    time: column of the time stamps [s], such as "ms*0.001", "t:ms" or "sec+nanosec*1e-9".
    rate: samples per second [Hz], for files without time stamps.
    qpos, qvel: columns of the recorded state by joint; they need `model`, which says the order of the joints.
    resample: samples per second to put the rollouts on [Hz].
    header: False for a text file in which no line names the columns, which are then called 1, 2, 3, ...
    header_line, delimiter, decimal, encoding: of text files, where what is found out is not right.
    sort: put samples in the order of their times.
    drop_repeats: keep the first of samples with the same time.
    trim: leave out samples without a time, and those before and after all controls are known.
    split_gap: a new rollout begins after a gap in time longer than this [s].
    split_restarts: a new rollout begins where time begins again.
    hold_ctrl: empty cells of controls repeat the previous value.
    scale: for each channel a factor, or a factor and the new unit.
    source, licence: stored in the log.

    Raises:
      DsoError: a file is missing or damaged, or it has no column that the mapping names.
    """
    paths = [path for part in files for path in ([part] if isinstance(part, str | os.PathLike) else part)]
    if not paths:
        raise DsoError("no file was given; give the path of a log (.h5) or of a table, or several.")
    logs = []
    with speaking_python():
        from dso_robotics.data.dialect import Dialect
        from dso_robotics.data.formats import is_log_file
        from dso_robotics.data.order import Repair

        dialect = Dialect(
            header=header, header_line=header_line, delimiter=delimiter, decimal=decimal, encoding=encoding
        )
        repair = Repair(
            sort=sort,
            drop_repeats=drop_repeats,
            trim=trim,
            split_gap=split_gap,
            split_restarts=split_restarts,
            hold_ctrl=hold_ctrl,
        )
        how: dict[str, Any] = {
            "time": time,
            "rate": rate,
            "dialect": dialect,
            "repair": repair,
            "resample_rate": resample,
        }
        if model is not None:
            from dso_robotics.physics.model import load

            how["model"] = load(model).mj
        for path in paths:
            if is_log_file(Path(path)):
                logs.append(read(Path(path)))
                continue
            from dso_robotics.data.convert import convert_table

            how |= {"qpos": _mapping(qpos), "qvel": _mapping(qvel)}
            rollouts = convert_table(Path(path), _mapping(ctrl), _mapping(sensors), **how).rollouts
            origin = source or f"converted from {Path(path).name}"
            logs.append(Log(str(path), origin, licence or "not stated", rollouts))
        log = merge_logs(logs)
        if scale:
            from dso_robotics.data.convert import rescale

            log = rescale(log, {name: v if isinstance(v, tuple) else (v, "") for name, v in scale.items()})
    if source or licence:
        log = Log(log.path, source or log.source, licence or log.licence, log.rollouts, log.attributes)
    return log


def convert(files: Path_ | Sequence[Path_], out: Path_, *, force: bool = False, **mapping: Any) -> Log:
    """Like `read_log` with the same keywords, and write the log file `out`. `force` replaces an existing file.

    Raises:
      DsoError: as `read_log`, or `out` exists or cannot be written.
    """
    from dso_robotics.data.atomic import refuse_existing

    with speaking_python():
        refuse_existing(Path(out), force)
        log = read_log(files, **mapping)
        write_log(Path(out), log)
        return read(Path(out))


def _mapping(columns: Mapping_) -> list[str]:
    if isinstance(columns, Mapping):
        return [f"{channel}={column}" for channel, column in columns.items()]
    return [columns] if isinstance(columns, str) else list(columns)


class Recordings(dict[str, "Recording"]):
    """Recordings of real mechanisms by name; prints itself."""

    def _rows(self) -> list[tuple[str, str, str]]:
        return [("name", "what", "licence"), *((name, r.title, r.licence) for name, r in self.items())]

    def __str__(self) -> str:
        return text_table(self._rows(), "<<<")

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return block("Recordings", "`dso.fetch(name)` gets one", [html_table(self._rows(), "<<<")], ())


def fetch(name: str | None = None) -> "Log | Recordings":
    """The recording `name` of a real mechanism as a log. Without a name: the available recordings.

    Files are downloaded once from their authors' repository into your cache, and are checked against their SHA-256.

    Raises:
      DsoError: there is no recording of that name, or its files are not available.
    """
    from dso_robotics.data import registry

    with speaking_python():
        return Recordings(registry.registry()) if name is None else registry.fetch(name)


def simulate(
    model: "str | os.PathLike[str] | mujoco.MjSpec | mujoco.MjModel | Robot | None" = None,
    *,
    policy: "str | os.PathLike[str] | None" = None,
    excite: str = "multisine",
    seconds: float | None = None,
    rollouts: int = 1,
    amplitude: float | Mapping[str, float] | None = None,
    top: float = 2.0,
    every: int = 1,
    action_noise: float | Mapping[str, float] = 0.0,
    sensor_noise: float | Mapping[str, float] = 0.0,
    quantum: float | Mapping[str, float] = 0.0,
    delay: int = 0,
    spread_qpos: float = 0.0,
    spread_qvel: float = 0.0,
    keep_state: bool = False,
    seed: int = 0,
    start: Mapping[str, float] | None = None,
    task: Mapping[str, float] | None = None,
) -> Log:
    """A synthetic log of a model, with noisy actions and with delayed, noisy, quantised sensors, like a real log.

    policy: folder of `dso train`: its policy and estimator drive the robot, and read what its sensors show. `model` is then
      another robot than that of the training, matched by name, or None. One sample a control step; `excite`, `amplitude`, `top`
      and `every` have no effect.
    start, task: of a policy, positions of joints at the start [rad, m], and task numbers; by default as the study draws them.
    excite: "multisine", "chirp", "steps" or "none", within the ctrlrange or ±`amplitude`, up to `top` [Hz].
    seconds: length of a rollout [s]; by default 5, and of a policy the study's episode.
    every: model steps per sample.
    action_noise, sensor_noise: standard deviations in the channel's unit, one number or one by name.
    quantum: resolutions in the channel's unit, one number or one by name.
    delay: delay of sensor values in samples.
    spread_qpos, spread_qvel: half-width of random start states.

    Raises:
      DsoError: the model does not load, a name is unknown, or the simulation diverges.
    """
    import numpy as np

    from dso_robotics.data.controls import excitations
    from dso_robotics.data.record import Flaws, record
    from dso_robotics.physics.model import load
    from dso_robotics.robot.policy_log import play_policy

    def by_name(value: float | Mapping[str, float]) -> Mapping[str, float]:
        return value if isinstance(value, Mapping) else {"*": value} if value else {}

    with speaking_python():
        if rollouts < 1 or every < 1 or seed < 0:
            raise DsoError("rollouts and every count from 1 and seed from 0; give larger numbers.")
        noise = {"action_noise": by_name(action_noise), "sensor_noise": by_name(sensor_noise)}
        flaws = Flaws(**noise, quantum=by_name(quantum), delay=delay)
        if policy is not None:
            robot = None if model is None else load(model)
            wanted: dict[str, Any] = {"rollouts": rollouts, "seed": seed, "seconds": seconds, "keep_state": keep_state}
            wanted |= {"position": start or {}, "spread_qpos": spread_qpos, "spread_qvel": spread_qvel, "task": task}
            return play_policy(Path(policy), robot, flaws, **wanted)
        if model is None or start is not None or task is not None:
            raise DsoError("simulate needs a model, or a policy; start and task are of a policy.")
        robot, rng = load(model), np.random.default_rng(seed)
        seconds = 5.0 if seconds is None else seconds
        shape: dict[str, Any] = {"seconds": seconds, "rollouts": rollouts, "every": every, "amplitude": amplitude}
        controls = excitations(robot.mj, rng, excite, top=top, **shape)
        source = f"simulated from {Path(robot.source).name} with excitation {excite}, seed {seed}"
        spread: dict[str, Any] = {"spread_qpos": spread_qpos, "spread_qvel": spread_qvel}
        return record(robot.mj, rng, controls, every=every, flaws=flaws, keep_state=keep_state, source=source, **spread)
