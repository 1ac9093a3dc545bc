"""State estimators against EKF and UKF tuned by maximum likelihood on the same log: model mismatch, a real pendulum, latency.

    DSO_DATA=... python benchmarks/estimate.py --out benchmarks/results/estimate.json

EKF and UKF are those of dynamax if it can be imported (`make bench-filters` makes an environment with it), and those of this
file (NumPy on C MuJoCo; the EKF's Jacobians are MuJoCo's own finite differences), which are fast enough to time. All have
diagonal process and measurement noise, estimated by Nelder-Mead on the likelihood of the innovations. dynamax's smoother uses
all measurements, so it is a bound for every filter.
"""

import argparse
import copy
import json
import time
from collections.abc import Callable
from pathlib import Path

import mujoco
import numpy as np
from estimate_logs import JUDGED, WORLDS, forget, without_first, world
from provenance import begun
from scipy.optimize import minimize

from dso_robotics.core.descent import Best
from dso_robotics.core.method.gauss_newton import solve
from dso_robotics.core.method.least_squares import Settings
from dso_robotics.costs.estimation import WindowedEstimation
from dso_robotics.data.log import Log
from dso_robotics.data.registry import fetch
from dso_robotics.data.rollout import Rollout
from dso_robotics.parameters.path import parse
from dso_robotics.parameters.vector import ParameterVector, pack
from dso_robotics.physics.model import Robot, load
from dso_robotics.robot import estimator_start, filter_data
from dso_robotics.robot.estimator import Estimator
from dso_robotics.robot.filter import CFilter
from dso_robotics.robot.learned import Learned

MODELS = Path(__file__).parent.parent / "models"


class Kalman:
    """EKF or UKF of a model whose joints are all hinges or slides; noise = log deviations [process (2 nv), sensors]."""

    def __init__(self, model: mujoco.MjModel, addresses: np.ndarray, *, unscented: bool = False):
        self.model, self.data, self.addresses, self.unscented = model, mujoco.MjData(model), addresses, unscented
        self.n, self.nv = 2 * model.nv, model.nv
        self._a, self._c = np.zeros((self.n, self.n)), np.zeros((model.nsensordata, self.n))

    def _set(self, x: np.ndarray, u: np.ndarray) -> None:
        self.data.qpos[:], self.data.qvel[:], self.data.ctrl[:] = x[: self.nv], x[self.nv :], u

    def _step(self, x: np.ndarray, u: np.ndarray) -> np.ndarray:
        self._set(x, u)
        mujoco.mj_step(self.model, self.data)
        return np.concatenate([self.data.qpos, self.data.qvel])

    def _read(self, x: np.ndarray, u: np.ndarray) -> np.ndarray:
        self._set(x, u)
        mujoco.mj_step1(self.model, self.data)
        return self.data.sensordata[self.addresses].copy()

    def update(self, x, p, u, y, q, r):
        """State, covariance, innovation and its covariance one sample later."""
        if self.unscented:
            return self._unscented(x, p, u, y, q, r)
        self._set(x, u)
        mujoco.mjd_transitionFD(self.model, self.data, 1e-6, 0, self._a, None, None, None)
        x = self._step(x, u)
        p = self._a @ p @ self._a.T + q
        self._set(x, u)
        mujoco.mjd_transitionFD(self.model, self.data, 1e-6, 0, None, None, self._c, None)
        c = self._c[self.addresses]
        e, s = y - self._read(x, u), c @ p @ c.T + r
        return self._correct(x, p, e, s, p @ c.T)

    def _unscented(self, x, p, u, y, q, r):
        n, spread = self.n, 3.0
        weights = np.full(2 * n + 1, 1 / (2 * spread))
        weights[0] = 1 - n / spread

        def points(x, p):
            root = np.linalg.cholesky(spread * p + 1e-15 * np.eye(n)).T
            return np.concatenate([x[None], x + root, x - root])

        moved = np.array([self._step(point, u) for point in points(x, p)])
        x = weights @ moved
        p = (moved - x).T @ (weights[:, None] * (moved - x)) + q
        at = points(x, p)
        read = np.array([self._read(point, u) for point in at])
        mean = weights @ read
        s = (read - mean).T @ (weights[:, None] * (read - mean)) + r
        return self._correct(x, p, y - mean, s, (at - x).T @ (weights[:, None] * (read - mean)))

    @staticmethod
    def _correct(x, p, e, s, cross):
        seen = np.isfinite(e)
        if seen.any():
            k = np.linalg.solve(s[np.ix_(seen, seen)], cross[:, seen].T).T
            x, p = x + k @ e[seen], p - k @ s[np.ix_(seen, seen)] @ k.T
        return x, (p + p.T) / 2, e, s

    def run(self, start, ctrl, measured, noise) -> tuple[float, np.ndarray, np.ndarray]:
        """Negative log-likelihood, innovations (U, ny) and states (U, n) of one window."""
        q, r = np.diag(np.exp(2 * noise[: self.n])), np.diag(np.exp(2 * noise[self.n :]))
        x, p, cost, errors, states = start.copy(), 1e-2 * np.eye(self.n), 0.0, [], []
        for u, y in zip(ctrl[:-1], measured[1:], strict=True):
            x, p, e, s = self.update(x, p, u, y, q, r)
            seen = np.isfinite(e)
            part = s[np.ix_(seen, seen)]
            if seen.any():
                cost += 0.5 * e[seen] @ np.linalg.solve(part, e[seen]) + 0.5 * np.linalg.slogdet(part)[1]
            errors.append(e)
            states.append(x)
        return cost, np.array(errors), np.array(states)

    def tune(self, given: filter_data.FilterWindows, most: int, begin: np.ndarray | None = None) -> np.ndarray:
        """Noise of maximum likelihood on every other training window."""
        if begin is None:
            sensors = np.log(0.3 * np.nanstd(given.measured, (0, 1)))
            begin = np.concatenate([np.full(self.nv, -7.0), np.full(self.nv, -3.0), sensors])

        def cost(noise):
            if np.abs(noise).max() > 20:
                return 1e12
            parts = zip(given.start[::2], given.ctrl[::2], given.measured[::2], strict=True)
            total = sum(self.run(x, u, y, noise)[0] for x, u, y in parts)
            return total if np.isfinite(total) else 1e12

        simplex = begin + np.concatenate([np.zeros((1, len(begin))), 1.5 * np.eye(len(begin))])
        return minimize(
            cost, begin, method="Nelder-Mead", options={"maxfev": most, "initial_simplex": simplex, "fatol": 0.5}
        ).x


def summarise(errors: np.ndarray, states: np.ndarray, given: filter_data.FilterWindows, skip: int) -> dict:
    """Hold-out numbers after the first `skip` samples, over all windows."""
    out = {"innovation_rmse": np.sqrt(np.nanmean(errors[:, skip:] ** 2, axis=(0, 1))).tolist()}
    truth = given.truth[:, 1:]
    if np.isfinite(truth).any():
        off = (states[..., : truth.shape[-1]] - truth)[:, skip:]
        out["state_rmse"] = np.sqrt(np.nanmean(off**2, axis=(0, 1))).tolist()
    return out


def compare(
    robot: Robot,
    log: Log,
    hold: tuple[str, ...],
    sensors: list[str],
    free: dict[str, list[str]],
    window: float,
    *,
    done: dict,
    tell: Callable[[dict], None],
) -> dict:
    """Every estimator, trained on rollouts not in `hold`, evaluated on `hold`. `done` are known; `tell` is called for each."""
    channels = filter_data.select_channels(log, robot.mj, sensors)
    interval, substeps = filter_data.common_interval(log.rollouts, float(robot.mj.opt.timestep), "log")
    parts = {}
    for name, seconds in (("train", window), ("hold_out", None)):
        mine = [r for r in log.rollouts if (r.name in hold) == (name == "hold_out")]
        parts[name] = filter_data.cut_windows(
            mine, channels, robot.mj, interval=interval, substeps=substeps, seconds=seconds
        )
    train, test = parts["train"], parts["hold_out"]
    skip, found, noise = round(0.5 / interval), dict(done), None
    for name in ("ekf", "ukf"):
        if name in found:
            noise = np.log(found[name]["noise"])
            continue
        began, kalman = time.perf_counter(), Kalman(robot.mj, channels.sensor_addresses, unscented=name == "ukf")
        # The UKF begins at the EKF's noise.
        noise = kalman.tune(train, 100, None) if name == "ekf" else kalman.tune(train, 30, noise)
        seconds, runs = time.perf_counter() - began, []
        for x, u, y in zip(test.start, test.ctrl, test.measured, strict=True):
            runs.append(kalman.run(x, u, y, noise)[1:])
        errors, states = (np.stack(part) for part in zip(*runs, strict=True))
        found[name] = summarise(errors, states, test, skip) | {
            "train_seconds": seconds,
            "noise": np.exp(noise).tolist(),
        }
        tell(found)
    if "ekf (dynamax)" not in found:
        found |= library(robot, train, test, skip)
        tell(found)
    for name, paths in free.items():
        if name in found:
            continue
        began, kind = time.perf_counter(), name.replace(",", " ").split(" ")[0]
        physics = pack([parse(p) for p in paths], robot) if paths else ParameterVector((), robot.mj)
        fit, apart = filter_data.set_apart(train, 0.2 if "validated" in name else 0.0, "log")
        vector, scales = estimator_start.begin(kind, 3, fit, physics)
        more = {"warm_up": round(0.2 * fit.measured.shape[1]), "robust": "auto" if "Student" in name else None}
        problem = WindowedEstimation(CFilter(vector, scales, fit), **more)
        judge = None
        if apart is not None:
            watched, start = WindowedEstimation(CFilter(vector, scales, apart), **more), apart.start
            judge = Best(lambda s, w=watched, x=start: w.profiled(s.z.copy(), x), take=lambda s: s.z)
        solution = solve(
            problem,
            vector.initial,
            fit.start,
            low=vector.low,
            high=vector.high,
            scale=vector.scale,
            settings=Settings(iterations=25, cost_tolerance=1e-5),
            keep=judge,
        )
        z = solution.z if judge is None or judge.best is None else judge.best.kept
        seconds = time.perf_counter() - began
        run = CFilter(vector, scales, test).run(z, test.start)
        found[name] = summarise(test.measured[:, 1:] - run.predicted, run.states, test, skip)
        found[name] |= {"train_seconds": seconds, "numbers": vector.size}
        if problem.degrees is not None:
            found[name]["degrees"] = problem.degrees.tolist()
        tell(found)
    return found


_KEPT: dict[tuple, object] = {}


def library(robot: Robot, train: filter_data.FilterWindows, test: filter_data.FilterWindows, skip: int) -> dict:
    """dynamax's EKF, UKF and smoother; how far the EKF is from the one here and from cuthbert's. Nothing without dynamax."""
    try:
        import cuthbert  # noqa: F401
        import dynamax  # noqa: F401
        import jax
    except ImportError:
        return {}
    jax.config.update("jax_enable_x64", True)
    from estimate_kept import Kept, first_noise

    names = train.channels.sensor_names
    kept = _KEPT.setdefault((id(robot), names), None) or Kept(robot.mj, train)
    _KEPT[id(robot), names] = kept
    found, noise = {}, first_noise(robot.mj, train)
    for kind, most in (("ekf", 100), ("ukf", 30)):
        began = time.perf_counter()
        noise = kept.tune(kind, train, noise, most)
        seconds, out = time.perf_counter() - began, kept.run(kind, test, noise)
        entry = summarise(out["innovations"], out["states"], test, skip) | {"train_seconds": seconds}
        entry["noise"] = np.exp(noise).tolist()
        if kind == "ekf":
            same = Kalman(robot.mj, train.channels.sensor_addresses)
            ours = same.run(test.start[0], test.ctrl[0], test.measured[0], noise)[1]
            states = kept.cuthbert(test, noise)
            entry["innovations_differ_from_ours"] = float(np.nanmax(np.abs(ours - out["innovations"][0])))
            entry["states_differ_from_cuthbert"] = float(np.abs(states - out["states"]).max())
        found[f"{kind} (dynamax)"] = entry
        smooth = summarise(out["innovations"], out["smoothed"], test, skip)
        if "state_rmse" in smooth:
            found[f"{kind} smoother (dynamax)"] = {"state_rmse": smooth["state_rmse"]}
    return found


def latency(robot: Robot, sensors: list[str] | None, rng) -> dict:
    """Median time of an update [ms] of each corrector and of the EKF, on one core."""
    model, estimators = robot.mj, {}
    count = 2000
    names = [mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_SENSOR, i) for i in range(model.nsensor)]
    ctrl_names = tuple(mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_ACTUATOR, i) for i in range(model.nu))
    rollout = Rollout(
        name="a",
        time=model.opt.timestep * np.arange(count),
        ctrl=0.1 * rng.normal(size=(count, model.nu)),
        ctrl_names=ctrl_names,
        sensordata=0.1 * rng.normal(size=(count, len(names))),
        sensor_names=tuple(names),
    )
    log = Log("", "", "", (rollout,))
    channels = filter_data.select_channels(log, model, sensors)
    given = filter_data.cut_windows(
        log.rollouts, channels, model, interval=float(model.opt.timestep), substeps=1, seconds=None
    )
    for kind in ("gain", "linear", "mlp", "recurrent"):
        vector, scales = estimator_start.begin(kind, 8, given, ParameterVector((), model))
        ny = len(channels.sensor_names)
        learned = Learned(
            vector.corrector,
            vector.weights,
            scales,
            np.ones(ny),
            np.zeros(ny),
            np.zeros(ny),
            np.ones(ny),
            np.zeros((ny, vector.corrector.nf)),
            None,
            channels.sensor_names,
            channels.sensor_addresses,
            given.interval,
            1,
        )
        estimators[kind] = Estimator(copy.copy(model), learned)
        estimators[kind].reset()
    kalman = Kalman(model, channels.sensor_addresses)
    x, p, took = given.start[0], 1e-2 * np.eye(2 * model.nv), {name: [] for name in (*estimators, "ekf")}
    # In turns, so that whatever else the machine does slows all alike.
    for u, y in zip(given.ctrl[0], given.measured[0], strict=True):
        for name, estimator in estimators.items():
            began = time.perf_counter()
            estimator.update(u, y, dt=given.interval)
            took[name].append(time.perf_counter() - began)
        began = time.perf_counter()
        x, p, _, _ = kalman.update(x, p, u, y, 1e-4 * np.eye(2 * model.nv), 1e-4 * np.eye(len(y)))
        took["ekf"].append(time.perf_counter() - began)
    return {name: 1e3 * float(np.median(seconds)) for name, seconds in took.items()}


def main() -> None:
    """Run the requested parts."""
    parser = argparse.ArgumentParser(description="State estimators against EKF and UKF")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--part", choices=("latency", "mismatch", "pendulum"), action="append")
    parser.add_argument("--go-on", action="store_true", help="keep what the file has already")
    args = parser.parse_args()
    wanted = args.part or ["latency", "mismatch", "pendulum"]
    results = begun(args.out)
    mujoco.set_mju_user_warning(lambda text: None)

    def keep(name: str, value: dict) -> None:
        results[name] = value
        args.out.write_text(json.dumps(results, indent=1) + "\n")
        print(name, json.dumps(value)[-400:], flush=True)

    if "latency" in wanted:
        rng = np.random.default_rng(0)
        keep(
            "latency_ms",
            {name: latency(load(MODELS / f"{name}.xml"), None, rng) for name in ("simple_pendulum", "two_joint_arm")},
        )
    free = ["body/rod/mass", "joint/pivot/damping", "joint/pivot/frictionloss", "sensor/pos/bias"]
    robot = load(MODELS / "simple_pendulum.xml")
    robot.mj.opt.timestep = 0.005
    if "mismatch" in wanted:
        results["mismatch"] = results.get("mismatch", {}) if args.go_on else {}
        for name, change in WORLDS.items():
            log = forget(world(robot, change))
            ours = {"gain": [], "linear": [], "gain and model": free}
            compare(
                *(robot, log, ("run2",), ["pos"], ours, 1.0),
                done=results["mismatch"].get(name, {}),
                tell=lambda found, name=name: keep("mismatch", results["mismatch"] | {name: found}),
            )
    if "pendulum" in wanted:
        log = fetch("dfki_simple_pendulum")
        model = ["joint/pivot/damping", "joint/pivot/frictionloss", "actuator/tau/gain", "actuator/tau/offset"]
        ours = {"gain": [], "linear": [], "recurrent": [], "gain and model": model}
        ours |= {"gain, Student": [], "gain and model, Student": model}
        ours |= {f"{name}, validated": [] for name in ("linear", "mlp", "recurrent")}
        ours |= {f"{name} and model, Student, validated": model for name in ("gain", "mlp", "recurrent")}
        for key, judged in JUDGED.items():
            # The first sample of some runs comes 22 ms before the second, which is no whole number of intervals.
            pair = tuple(without_first(log[name]) for name in ("energy_shaping", judged))
            compare(
                *(robot, Log("", log.source, log.licence, pair), (judged,), ["pos", "vel"], ours, 1.0),
                done=results.get(key, {}) if args.go_on else {},
                tell=lambda found, key=key: keep(key, found),
            )


if __name__ == "__main__":
    main()
