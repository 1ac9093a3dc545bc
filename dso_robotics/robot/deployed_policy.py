"""A trained policy at run time. It uses NumPy, without JAX. C MuJoCo computes sensor readings that the caller does not give.

>>> policy = Policy.load("result")                    # doctest: +SKIP
>>> data.ctrl[:] = policy.act(data)                   # doctest: +SKIP
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import mujoco
import numpy as np

from dso_robotics.data.bundle import bundled, load_text
from dso_robotics.data.run_file import SCHEMA, read_run, run_schema, write_run
from dso_robotics.errors import DsoError, nearest
from dso_robotics.physics.model import Robot, actuator_labels
from dso_robotics.physics.quiet import quiet
from dso_robotics.robot.delay_steps import delay_steps
from dso_robotics.robot.deployed_model import as_number, as_numbers, checked_numbers, model_beside
from dso_robotics.robot.entries import channel_entries, sensor_entries, state_entries
from dso_robotics.robot.policy_numbers import PolicyNumbers

FILE = "policy.h5"
_LATEST = 10_000
Vector = Sequence[float] | np.ndarray


class Policy:
    """Computes a control for every control step. Keeps its memory, delayed actions and clock between steps.

    Two threads must not use one policy at once; each may load its own.

    period: length of a control step [s]. Call `act` once per control step.
    sees: names of the observed values, in order.
    ctrl_names: names of the controls.
    sees_sensors: whether it observes sensors of the model instead of the state.
    """

    def __init__(self, numbers: PolicyNumbers, mjcf: str = "", files: Mapping[str, bytes] = MappingProxyType({})):
        self.numbers, self._mjcf, self._files = numbers, mjcf, files
        self.period, self.sees, self.ctrl_names = numbers.period, numbers.labels, numbers.ctrl_names
        self.sees_sensors = bool(numbers.columns)
        self._parts = numbers.split()
        self._data: Any = None
        self.reset()

    @classmethod
    def load(cls, folder: str | Path) -> "Policy":
        """Load the policy that `dso train --out FOLDER` or `save` wrote.

        Raises:
          DsoError: the folder holds no policy, an unfinished one or a damaged one, or the policy observes values that are
            known only in training.
        """
        folder = Path(folder)
        saved = folder if folder.is_file() else folder / FILE
        try:
            if saved.is_file():
                tree, _, mjcf = read_run(saved)
                files = {
                    name: np.asarray(content, np.uint8).tobytes() for name, content in tree.get("files", {}).items()
                }
                return cls(PolicyNumbers.from_dict(tree["policy"]), mjcf, files)
            return _of_training(folder)
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise DsoError(f"{folder}: the policy in it is damaged ({error}); train again.") from error

    @functools.cached_property
    def model(self) -> mujoco.MjModel:
        """The model of the robot that it was trained on. Raises DsoError if the policy's numbers are not of this model."""
        model, n = load_text(self._mjcf, files=self._files, source="policy").mj, self.numbers
        if (model.nq, model.nv, model.na) != (n.nq, n.nv, n.na) or any(c >= model.nsensordata for c in n.columns):
            raise DsoError(
                "policy: its model has another state or other sensors than its numbers say, so it is damaged; train again."
            )
        return model

    def save(self, folder: str | Path) -> Path:
        """Write `folder`/policy.h5, which is all that `load` needs, and return its path. An existing policy.h5 is replaced.

        The model of the robot is in it, with its meshes.

        Raises:
          DsoError: the folder cannot be written to.
        """
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DsoError(f"{folder}: cannot make this folder ({error.strerror}); choose another.") from error
        if (folder / FILE).exists() and run_schema(folder / FILE) != SCHEMA:
            raise DsoError(
                f"{folder / FILE}: dso did not write this file and does not replace it; choose another folder."
            )
        tree: dict[str, Any] = {"policy": self.numbers.as_dict()}
        if self._files:
            tree["files"] = {name: np.frombuffer(content, np.uint8) for name, content in self._files.items()}
        write_run(folder / FILE, tree, {"command": "policy"}, self._mjcf)
        return folder / FILE

    def to_onnx(self, *, precision: Literal["float64", "float32"] = "float64") -> bytes:
        """The policy as the bytes of an ONNX model; see docs/deployment.md. Raises MissingExtra without the package onnx."""
        from dso_robotics.robot.policy_onnx import policy_onnx

        return policy_onnx(self.numbers, source="Policy.to_onnx", precision=precision)

    def to_json(self) -> str:
        """The policy as JSON: names, order, scaling, layers, squash, delay and period."""
        from dso_robotics.robot.policy_json import policy_json

        return policy_json(self.numbers, source="Policy.to_json")

    def to_c(self) -> str:
        """The policy as a C99 header without dependencies."""
        from dso_robotics.robot.policy_c import policy_header

        return policy_header(self.numbers, source="Policy.to_c")

    def reset(self, task: Mapping[str, float] | None = None, *, delay: int | None = None) -> None:
        """Start an episode: clear the memory and the delayed actions, set the time to 0, and the last control to home.

        task: task numbers by name.
        delay: control steps until an action acts; by default the training's, or the middle of those that it drew. On a robot
          that is late itself, give 0.

        Raises:
          DsoError: the policy has no task number of that name, the number is not finite, or the delay is none.
        """
        n = self.numbers
        late = n.delay if delay is None else delay
        if isinstance(late, bool) or not isinstance(late, int | np.integer) or not 0 <= late <= _LATEST:
            raise DsoError(f"delay: expected a whole number of control steps from 0 to {_LATEST}, got {late!r}.")
        self._task = self._with(n.task_first, task or {})
        self._memory, self._steps = np.zeros(n.memory), 0
        self._queue = [np.zeros(len(n.ctrl_names))] * int(late)
        self._ctrl = n.home

    def change_task(self, task: Mapping[str, float]) -> dict[str, float]:
        """Change task numbers in the middle of an episode, and return all of them by name. Memory and clock go on.

        Raises:
          DsoError: as `reset` does.
        """
        self._task = self._with(self._task, task)
        return dict(zip(self.numbers.tasks, map(float, self._task), strict=True))

    def _with(self, numbers: np.ndarray, task: Mapping[str, float]) -> np.ndarray:
        """Task numbers with those of `task` changed."""
        chosen, names = numbers.copy(), self.numbers.tasks
        for name, value in task.items():
            if name not in names:
                has = nearest(str(name), names, 8) or "none: it was trained for one task"
                raise DsoError(f"task: there is no number {name!r}; the policy knows {has}.")
            chosen[names.index(name)] = as_number(f"task: {name}", value)
        return chosen

    def snapshot(self) -> dict[str, np.ndarray]:
        """All that the policy remembers, as new arrays: task, memory, delayed actions, control and clock. See `restore`."""
        queue = np.array(self._queue, float).reshape(len(self._queue), len(self.ctrl_names))
        parts = {
            "task": self._task,
            "memory": self._memory,
            "queue": queue,
            "ctrl": self._ctrl,
            "steps": self._steps,
        }
        return {name: np.array(value, float) for name, value in parts.items()}

    def restore(self, snapshot: Mapping[str, Vector]) -> None:
        """Go on from where `snapshot` was taken, of this policy or of another one that was loaded from the same folder.

        Raises:
          DsoError: it is not a snapshot of this policy. The policy is then unchanged.
        """
        now = self.snapshot()
        if set(snapshot) != set(now):
            raise DsoError(f"restore: expected what snapshot() returned, with {', '.join(now)}.")
        given = {name: as_numbers(f"restore: {name}", value) for name, value in snapshot.items()}
        for name, value in given.items():
            if value.shape != now[name].shape or not np.isfinite(value).all():
                raise DsoError(
                    f"restore: {name} has shape {value.shape} where this policy has {now[name].shape}, or holds a number that "
                    "is not finite; give a snapshot of the same policy."
                )
        self._task, self._memory, self._ctrl = given["task"], given["memory"], given["ctrl"]
        self._queue, self._steps = list(given["queue"]), int(given["steps"])

    def act(
        self,
        data: mujoco.MjData | None = None,
        *,
        qpos: Vector | None = None,
        qvel: Vector | None = None,
        act: Vector | None = None,
        time: float | None = None,
        sensors: Vector | Mapping[str, float] | None = None,
    ) -> np.ndarray:
        """The control (nu,) of the next control step, within the actuators' ranges.

        data: gives the state and the time.
        qpos, qvel, act: the state without `data`, (nq,), (nv,), (na,); zeros where not given.
        sensors: readings for a policy that observes sensors, in the order of `sees` or by name. Without them, the policy
          computes the readings of its model in the state.
        time: time since `reset` [s]. By default the time of `data` or, without `data`, of the policy's own clock.

        Raises:
          DsoError: a wrong size or name, or a number that is not finite. The policy is then unchanged.
        """
        n = self.numbers
        if data is not None:
            if any(value is not None for value in (qpos, qvel, act)):
                raise DsoError("act: the state was given twice; give data, or qpos, qvel and act.")
            qpos, qvel, act = data.qpos, data.qvel, data.act
            time = float(data.time) if time is None else time
        if self.sees_sensors and sensors is not None:
            seen = self._readings(sensors)
        else:
            if sensors is not None:
                raise DsoError("sensors: this policy sees the state; give qpos, qvel and act.")
            if qpos is None:
                what = "sensors, or data, or qpos and qvel" if self.sees_sensors else "data, or qpos and qvel"
                raise DsoError(f"act: there is nothing to see; give {what}.")
            state = [
                np.zeros(size) if value is None else _vector(name, value, size)
                for name, value, size in (("qpos", qpos, n.nq), ("qvel", qvel, n.nv), ("act", act, n.na))
            ]
            seen = self._computed(*state) if self.sees_sensors else n.observe(*state)
        now = self._steps * n.period if time is None else as_number("time", time)
        action, memory = n.decide(self._parts, seen, self._memory, self._task, now)
        if not np.isfinite(action).all():
            raise DsoError("the policy's action is not finite; check what it is shown.")
        played, *queue = [*self._queue, action]
        self._memory, self._queue, self._steps = memory, queue, self._steps + 1
        self._ctrl = n.led(played, self._ctrl)
        return self._ctrl.copy()

    def _readings(self, sensors: Any) -> np.ndarray:
        if isinstance(sensors, Mapping):
            for name in sensors:
                if name not in self.sees:
                    raise DsoError(f"sensors: the policy sees no {name!r}; it sees {nearest(str(name), self.sees, 8)}.")
            missing = [name for name in self.sees if name not in sensors]
            if missing:
                raise DsoError(f"sensors: {missing[0]!r} is missing; the policy sees {', '.join(self.sees)}.")
            sensors = [sensors[name] for name in self.sees]
        return _vector("sensors", sensors, len(self.sees))

    def _computed(self, qpos: np.ndarray, qvel: np.ndarray, act: np.ndarray) -> np.ndarray:
        """Readings of the model's sensors in a state, under the control that acted last."""
        if self._data is None:
            self._data = mujoco.MjData(self.model)
        mujoco.mj_resetData(self.model, self._data)
        self._data.qpos[:], self._data.qvel[:], self._data.act[:] = qpos, qvel, act
        self._data.ctrl[:] = self._ctrl
        with quiet():
            mujoco.mj_forward(self.model, self._data)
        return self._data.sensordata[list(self.numbers.columns)]

    def __repr__(self) -> str:
        n = self.numbers
        sees = [*n.labels, *n.tasks, *(["the time"] if n.features else [])]
        return f"Policy({n.kind}, sees {', '.join(sees)}; controls {', '.join(n.ctrl_names)} every {n.period:g} s)"


def _vector(name: str, value: Any, size: int) -> np.ndarray:
    return checked_numbers(name, value, size, "policy's model")


def _of_training(folder: Path) -> Policy:
    if not (folder / "run.h5").is_file():
        raise DsoError(f"{folder}: there is no trained policy here; name the folder of a training.")
    tree, study, _ = read_run(folder / "run.h5")
    if tree.get("status") != "finished" or "policy" not in tree.get("theta", {}):
        raise DsoError(f"{folder}: holds no finished training; make one with `dso train STUDY.toml --out {folder}`.")
    robot, text = model_beside(folder, tree)
    return Policy(policy_numbers(tree, study, robot, str(folder)), *bundled(text, folder))


def policy_numbers(tree: Mapping[str, Any], study: Mapping[str, Any], robot: Robot, source: str) -> PolicyNumbers:
    """The data of a policy, from a training's run file and model."""
    given, mj = study["policy"], robot.mj
    if given.get("see_design") and (study["design"] or study["free"] or study["randomise"]):
        raise DsoError(
            f"{source}: this policy sees numbers of the mechanism (see_design), which a run-time policy is not told; train it "
            "without see_design."
        )
    plain, turning, columns = (), (), ()
    observe, sensors = given.get("observe") or "state", study.get("sensors")
    if not isinstance(observe, str) and not sensors:
        columns, labels = sensor_entries(robot, observe)
    elif observe not in ("state", "estimate"):
        named = (sensors or {}).get("channels") or (None if isinstance(observe, str) else observe)
        columns, labels = channel_entries(robot, named)
    else:
        plain, turning, labels = state_entries(robot, given.get("leave_out", ()))
    timestep, kind = float(mj.opt.timestep), given.get("kind", "network")
    step = study["control_step"]
    period = (1 if step is None else max(round(step / timestep), 1)) * timestep
    cycle = given.get("period")
    late = delay_steps(given.get("delay", 0.0), period)
    action = {name: np.asarray(tree["action"][name]) for name in ("middle", "half", "shift", "gain", "step", "limited")}
    tasks = [(t.get("values", [t.get("low")]), t) for t in study["task"].values()]
    return PolicyNumbers(
        kind=kind,
        weights=np.asarray(tree["theta"]["policy"], float),
        hidden=tuple(int(h) for h in given.get("hidden", (32, 32))),
        units=int(given.get("units", 16)),
        features=int(given.get("time_features", 0)),
        clock=float(cycle or study["seconds"]),
        cyclic=cycle is not None,
        mean=np.asarray(tree["scaling"]["mean"], float),
        spread=np.asarray(tree["scaling"]["spread"], float),
        plain=plain,
        turning=turning,
        columns=columns,
        labels=labels,
        tasks=tuple(study["task"]),
        task_low=np.array([min(v) if "values" in t else t["low"] for v, t in tasks], float),
        task_high=np.array([max(v) if "values" in t else t["high"] for v, t in tasks], float),
        task_first=np.array([v[0] for v, _ in tasks], float),
        ctrl_names=actuator_labels(mj),
        **action,
        period=period,
        delay=late[len(late) // 2],
        nq=int(mj.nq),
        nv=int(mj.nv),
        na=int(mj.na),
        on_estimate=observe == "estimate",
    )
