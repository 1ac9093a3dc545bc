"""Orientation of a hand-moved inertial unit: a learned estimator against published Madgwick and Mahony filters.

    DSO_DATA=... python benchmarks/estimate_imu.py --out benchmarks/results/estimate_imu.json

It uses the four BROAD trials of the registry (Laidig et al., Data 6(7), 72, 2021). The dynamics are user-defined: the
gyroscope rotates the orientation, and the accelerometer is low-passed in the world frame (the time constant is
learned). A constant gain of 6 x 3 maps tilt and heading errors to corrections of orientation and gyroscope bias. It is
trained on one trial with the cameras' orientation. It is evaluated on the others by the authors' metric: total angle
between estimate and reference, root mean square over the movement. `start` is the same filter with its hand-set gain,
before training.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import h5py
import jax
import jax.numpy as jnp
import numpy as np
from provenance import command

from dso_robotics.robot.corrector import Scales, make_corrector
from dso_robotics.robot.filter_jax import FilterWindow, JaxFilter, System, train

jax.config.update("jax_enable_x64", True)
GRAVITY = 9.81
# One parameter set for all 39 trials, and the best for each trial, as the authors publish them [deg].
PUBLISHED = {
    "02_undisturbed_slow_rotation_B": {"madgwick": 1.50, "mahony": 2.97, "madgwick_best": 1.48, "mahony_best": 1.83},
    "07_undisturbed_fast_rotation_B": {"madgwick": 5.00, "mahony": 5.23, "madgwick_best": 4.19, "mahony_best": 3.91},
    "10_undisturbed_slow_translation_A": {"madgwick": 3.57, "mahony": 2.76, "madgwick_best": 1.90, "mahony_best": 2.13},
    "16_undisturbed_fast_translation_B": {
        "madgwick": 4.82,
        "mahony": 20.28,
        "madgwick_best": 4.48,
        "mahony_best": 18.31,
    },
}


def product(p, q):
    """Quaternion product."""
    w = p[0] * q[0] - jnp.dot(p[1:], q[1:])
    return jnp.concatenate([w[None], p[0] * q[1:] + q[0] * p[1:] + jnp.cross(p[1:], q[1:])])


def exponential(v):
    """Quaternion of the rotation vector v, smooth at zero."""
    square = jnp.sum(v**2) / 4
    small = square < 1e-8
    half = jnp.sqrt(jnp.where(small, 1.0, square))
    sinc = jnp.where(small, 1 - square / 6, jnp.sin(half) / half)
    cos = jnp.where(small, 1 - square / 2, jnp.cos(half))
    return jnp.concatenate([cos[None], sinc * v / 2])


def rotate(q, v):
    """v in the world frame."""
    t = 2 * jnp.cross(q[1:], v)
    return v + q[0] * t + jnp.cross(q[1:], t)


class Inertial(System):
    """State: orientation (4) to east, north, up, gyroscope bias (3) [rad/s], low-passed acceleration (3) in the world [m/s^2].

    ctrl: gyroscope, accelerometer, magnetometer of the sample reached. Parameters: logit of the low-pass share a sample, and
    declination [0.01 rad]. Readings: tilt (2) and heading [rad], all zero for the right orientation.
    """

    dt: float

    def advance(self, model, state, ctrl):
        """Turn by the gyroscope."""
        q = product(state[:4], exponential((ctrl[:3] - state[4:7]) * self.dt))
        q = q / jnp.linalg.norm(q)
        share = jax.nn.sigmoid(model[0])
        low = state[7:] + share * (rotate(q, ctrl[3:6]) - state[7:])
        return jnp.concatenate([q, state[4:7], low])

    def read(self, model, state, ctrl):
        """Tilt and heading errors."""
        field = rotate(state[:4], ctrl[6:9])
        heading = jnp.arctan2(field[0], field[1]) - 0.01 * model[1]
        return jnp.concatenate([state[7:9] / GRAVITY, heading[None]])

    def move(self, state, change):
        """A rotation in the world frame, and a change of the bias given in the world frame."""
        q = product(exponential(change[:3]), state[:4])
        inverse = jnp.concatenate([q[:1], -q[1:]])
        bias = state[4:7] - rotate(inverse, change[3:])
        low = state[7:] + jnp.cross(change[:3], state[7:])
        return jnp.concatenate([q / jnp.linalg.norm(q), bias, low])

    def difference(self, start, end):
        """Rotation vector in the world frame."""
        inverse = jnp.concatenate([start[:1], -start[1:4]])
        turn = product(end[:4], inverse)
        turn = jnp.where(turn[0] < 0, -turn, turn)
        return 2 * turn[1:]

    def features(self, state, centre, scale):
        """None: the gain is constant."""
        return jnp.zeros(1)


def read_trial(name: str) -> dict[str, Any]:
    """Arrays of one trial."""
    path = Path(os.environ["DSO_DATA"]) / "broad_imu" / "raw" / f"{name}.hdf5"
    with h5py.File(path) as file:
        keys = ("imu_gyr", "imu_acc", "imu_mag", "opt_quat", "movement")
        trial: dict[str, Any] = {key: np.asarray(file[key]) for key in keys}
        trial["dt"] = 1 / float(np.asarray(file.attrs["sampling_rate"]))
    trial["ctrl"] = np.concatenate([trial["imu_gyr"], trial["imu_acc"], trial["imu_mag"]], 1)
    return trial


def orientation(acc: np.ndarray, mag: np.ndarray) -> np.ndarray:
    """Orientation from gravity and magnetic field only."""
    up = acc / np.linalg.norm(acc)
    east = np.cross(mag, up)
    east /= np.linalg.norm(east)
    r = np.stack([east, np.cross(up, east), up])
    w = np.sqrt(max(1e-12, 1 + np.trace(r))) / 2
    q = np.array([w, (r[2, 1] - r[1, 2]) / (4 * w), (r[0, 2] - r[2, 0]) / (4 * w), (r[1, 0] - r[0, 1]) / (4 * w)])
    return q / np.linalg.norm(q)


def windows(trial, length: int) -> FilterWindow:
    """Pieces of the movement that begin at the cameras' orientation, with the bias of the rest before it."""
    bias, rows = trial["imu_gyr"][:2000].mean(0), []
    moving = np.flatnonzero(trial["movement"])
    for i in range(moving[0], moving[-1] - length, length):
        if np.isfinite(trial["opt_quat"][i]).all():
            start = np.concatenate([trial["opt_quat"][i], bias, [0, 0, GRAVITY]])
            rows.append((start, trial["ctrl"][i + 1 : i + length + 1], trial["opt_quat"][i : i + length]))
    start, ctrl, truth = (np.stack(part) for part in zip(*rows, strict=True))
    shape = truth.shape[:2]
    # What the first ten seconds show is the start, which the cameras gave.
    counted = np.tile(np.arange(length) >= 2860, (len(start), 1))
    return FilterWindow(start, ctrl, np.zeros((*shape, 3)), np.ones(shape, bool), counted, truth)


def error(chain, theta, trial) -> float:
    """Total RMSE [deg] over the movement. The whole trial is filtered, from its first second at rest."""
    q = orientation(trial["imu_acc"][:286].mean(0), trial["imu_mag"][:286].mean(0))
    start = np.concatenate([q, trial["imu_gyr"][:286].mean(0), [0, 0, GRAVITY]])
    count = len(trial["ctrl"])
    ones = np.ones(count, bool)
    ctrl = np.concatenate([trial["ctrl"][1:], trial["ctrl"][-1:]])
    data = FilterWindow(start, ctrl, np.zeros((count, 3)), ones, ones, trial["opt_quat"])
    states = np.asarray(jax.jit(lambda p: chain.run(theta, p).states)(jax.tree.map(jnp.asarray, data)))
    cosine = np.abs(np.sum(states[:, :4] * trial["opt_quat"][1:], axis=1))
    angle = 2 * np.arccos(np.minimum(cosine, 1.0))
    return float(np.rad2deg(np.sqrt(np.nanmean(angle[trial["movement"][1:].astype(bool)] ** 2))))


def main() -> None:
    """Train on each chosen trial, evaluate on all."""
    parser = argparse.ArgumentParser(description="Orientation of an inertial unit")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument(
        "--train", nargs="*", default=["07_undisturbed_fast_rotation_B", "16_undisturbed_fast_translation_B"]
    )
    args = parser.parse_args()
    trials = {name: read_trial(name) for name in PUBLISHED}
    results = {"command": command(), "published_deg": PUBLISHED, "learned_deg": {}}
    for name in args.train:
        system = Inertial(trials[name]["dt"])
        scales = Scales(np.full(3, 0.05), np.array([1e-4] * 3 + [1e-6] * 3), np.zeros(10), np.ones(10))
        chain = JaxFilter(system, make_corrector("gain", 6, 3, 1), scales, parameters=2, truths=3, supervised=1e4)
        gain = np.zeros((6, 3))
        for part, size in ((0, 0.5), (3, 0.05)):
            gain[part + 1, 0], gain[part, 1], gain[part + 2, 2] = size, -size, -0.3 * size
        theta = chain.initial(gain, np.array([np.log(0.0035 / 1.0), 0.0]))
        theta[-3:] = np.log(0.05)
        before = {other: error(chain, theta, trial) for other, trial in trials.items()}
        began = time.perf_counter()
        found = train(chain, theta, windows(trials[name], 16000), iterations=args.iterations, learning_rate=0.01)
        results["learned_deg"][name] = {
            "start": before,
            "trained": {other: error(chain, found.theta, trial) for other, trial in trials.items()},
            "seconds": time.perf_counter() - began,
            "numbers": 20,
        }
        args.out.write_text(json.dumps(results, indent=1) + "\n")
        print(name, json.dumps(results["learned_deg"][name], indent=1), flush=True)


if __name__ == "__main__":
    main()
