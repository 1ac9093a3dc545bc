"""How soon a Kalman filter of `dso estimate` is right from a wrong start, and what spikes and a jump of a bias cost it.

    python -m benchmarks.estimate_recovery --out benchmarks/results/estimate_recovery.json

Worlds are simulated, with known noises: a quadrotor with an inertial unit (250 Hz), a compass (50 Hz) and positions (10 Hz),
and an arm of two joints with encoders (200 Hz). The peer is an extended Kalman filter with the same noises that begins at the
truth: the same filter with a narrow prior, so it need not find anything and nothing is gated.
"""

import argparse
import dataclasses
import json
import platform
import time
from pathlib import Path

import numpy as np

from benchmarks.provenance import command
from dso_robotics.robot.estimator_space import Space
from dso_robotics.robot.kalman_estimator import KalmanEstimator
from tests.robot.free_body import ARM, ARM_NOISE, QUADROTOR, QUADROTOR_NOISE, estimator, flight, swing


def followed(made: KalmanEstimator, truth: np.ndarray, ctrl: np.ndarray, readings: np.ndarray):
    """Errors (T, 2 nv), squared errors over covariance (T,), and seconds of each update (T,)."""
    space, errors, squares, seconds = Space(made.model), [], [], []
    for x, u, y in zip(truth[1:], ctrl, readings[1:], strict=True):
        begin = time.perf_counter()
        found = made.update(u, y)
        seconds.append(time.perf_counter() - begin)
        e = space.difference(x, np.concatenate([found.qpos, found.qvel]))
        errors.append(e)
        squares.append(e @ np.linalg.solve(found.covariance, e) / len(e))
    return np.array(errors), np.array(squares), np.array(seconds)


def quadrotor(runs: int, steps: int) -> dict[str, float]:
    """From any heading, 30 degrees and 1 m off: errors from 0.5 s on, beside the filter that began at the truth."""
    narrow = dataclasses.replace(QUADROTOR_NOISE, prior=np.full(12, 0.02))
    mine, theirs = [], []
    for i in range(runs):
        yaw = 2 * np.pi * i / runs - np.pi
        truth, thrusts, readings = flight(i, steps, yaw)
        guess = truth[0, :7].copy()
        guess[:3] += np.array([0.6, -0.6, 0.53])
        guess[3:] = np.cos(np.pi / 12), 0.6 * np.sin(np.pi / 12), 0.8 * np.sin(np.pi / 12), 0
        made = estimator(QUADROTOR, QUADROTOR_NOISE, interval=0.004)
        made.reset(qpos=guess, measurement=readings[0])
        mine.append(followed(made, truth, thrusts, readings))
        peer = estimator(QUADROTOR, narrow, interval=0.004, gate=1 - 1e-15)
        peer.reset(qpos=truth[0, :7], qvel=truth[0, 7:])
        theirs.append(followed(peer, truth, thrusts, readings))

    def rms(found: list, part: slice, first: int) -> float:
        return float(np.sqrt(np.mean([np.sum(e[first:, part] ** 2, 1) for e, _, _ in found])))

    table = {}
    for first, word in ((125, "after_0.5_s"), (375, "after_1.5_s")):
        for name, found in (("filter", mine), ("ekf_from_truth", theirs)):
            table[f"{name}_position_m_{word}"] = rms(found, slice(0, 3), first)
            table[f"{name}_attitude_deg_{word}"] = float(np.rad2deg(rms(found, slice(3, 6), first)))
            table[f"{name}_nees_{word}"] = float(np.mean([s[first:] for _, s, _ in found]))
    table["update_ms_median"] = 1e3 * float(np.median([t[250:] for _, _, t in mine]))
    table["update_ms_first_median"] = 1e3 * float(np.median([t[:25] for _, _, t in mine]))
    return table


def arm(runs: int) -> dict[str, float]:
    """From 2 rad and 5 rad/s off; with spikes in 2% of the readings; and with a jump of a speed sensor's bias."""
    table, within, plain, spiked, times = {}, [], [], [], []
    for i in range(runs):
        truth, torques, readings = swing(i, 800)
        rng = np.random.default_rng(i)
        made = estimator(ARM, ARM_NOISE, interval=0.005)
        made.reset(qpos=truth[0, :2] + 2 * rng.choice([-1, 1], 2), qvel=truth[0, 2:] + 5 * rng.choice([-1, 1], 2))
        off, _, seconds = followed(made, truth, torques, readings)
        steady = np.sqrt(np.mean(off[200:] ** 2, 0))
        wrong = np.flatnonzero((np.abs(off) > 4 * steady).any(1)[:200])
        within.append(0.005 * (wrong[-1] + 2) if len(wrong) else 0.005)
        times.append(seconds[100:])
        spoiled = readings.copy()
        wild = rng.random(spoiled.shape) < 0.02
        spoiled[wild] += rng.choice([-1, 1], wild.sum()) * rng.exponential(1.0, wild.sum())
        for y, kept in ((readings, plain), (spoiled, spiked)):
            made = estimator(ARM, ARM_NOISE, interval=0.005)
            made.reset(measurement=y[0])
            kept.append(followed(made, truth, torques, y)[0][100:, 2:])
    table["seconds_until_within_4_sigma_median"], table["seconds_until_within_4_sigma_worst"] = (
        float(np.median(within)), float(max(within)),
    )  # fmt: skip
    table["speed_error_rad_s"] = float(np.sqrt(np.mean(np.square(plain))))
    table["speed_error_with_spikes_rad_s"] = float(np.sqrt(np.mean(np.square(spiked))))
    table["spikes_raise_it_by_percent"] = 100 * (
        table["speed_error_with_spikes_rad_s"] / table["speed_error_rad_s"] - 1
    )
    table["update_ms_median"] = 1e3 * float(np.median(times))
    return table | bias(runs)


def bias(runs: int) -> dict[str, float]:
    """Seconds until the estimate of a bias that jumps by 0.3 rad/s stays within 0.06 rad/s."""
    xml = ARM.replace("</sensor>", '<jointvel name="rate" joint="elbow"/></sensor>')
    noise = dataclasses.replace(
        ARM_NOISE,
        sensor=np.append(ARM_NOISE.sensor, 0.02),
        drift=np.array([0.0, 0.0, 0.02]),
        offset=np.array([0.5, 0.5, 0.2]),
    )
    found = []
    for i in range(runs):
        truth, torques, readings = swing(i, 1600)
        rates = truth[:, 3] + 0.02 * np.random.default_rng(i).normal(size=len(truth))
        rates[600:] += 0.3
        made = estimator(xml, noise, interval=0.005)
        y = np.column_stack([readings, rates])
        made.reset(measurement=y[0])
        estimates = np.array([made.update(u, row).bias[2] for u, row in zip(torques, y[1:], strict=True)])
        wrong = np.flatnonzero(np.abs(estimates[599:] - 0.3) > 0.06)
        found.append(0.005 * (wrong[-1] + 1) if len(wrong) else 0.0)
    return {"bias_jump_seconds_median": float(np.median(found)), "bias_jump_seconds_worst": float(max(found))}


def main() -> None:
    """Run it and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--runs", type=int, default=6)
    args = parser.parse_args()
    table = {
        "quadrotor": quadrotor(args.runs, 750),
        "arm": arm(args.runs),
        "runs": args.runs,
        "machine": platform.machine(),
        "command": command(),
    }
    print(json.dumps(table, indent=1))
    if args.out:
        args.out.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
