"""Lorenz attractor: the published EKF figures, KalmanNet's, and a learned corrector, with the same data sets.

    python benchmarks/estimate_lorenz.py --out benchmarks/results/estimate_lorenz.json

The two tasks of the KalmanNet paper (Revach et al., IEEE TSP 2022) are set up as its public repository configures them:
sampling mismatch (a trajectory of time step 1e-5 s decimated to 0.02 s, T = 3000, r^2 = 1, filters on a Taylor model of order
5), and a sensor turned by one degree about each axis (r^2 = 0.01, q^2 = 1e-4, T = 2000). Training, validation and test there
share one trajectory and differ by noise; `fresh` is a second trajectory that is in no training data.
"""

import argparse
import functools
import json
import math
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from provenance import begun

from dso_robotics.robot.corrector import Scales, make_corrector
from dso_robotics.robot.filter_jax import FilterWindow, JaxFilter, OwnSystem, train

jax.config.update("jax_enable_x64", True)
DRIFT = np.array([[-10.0, 10.0, 0.0], [28.0, -1.0, 0.0], [0.0, 0.0, -8.0 / 3.0]])
DT = 0.02
CENTRE, SIZE = np.array([0.0, 0.0, 24.0]), np.array([8.0, 9.0, 8.6])


def taylor(x, dt: float = DT, order: int = 5):
    """x after dt by the Taylor series of exp(A(x) dt), A held at x."""
    a = jnp.asarray(DRIFT) + x[0] * jnp.array([[0.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    term = total = x
    for j in range(1, order + 1):
        term = dt / j * (a @ term)
        total = total + term
    return total


def decimated(count: int, start: tuple[float, float, float]) -> np.ndarray:
    """Every 2000th of count * 2000 steps of 1e-5 s."""
    a, b, c = start
    rows = np.empty((count, 3))
    for i in range(count * 2000):
        p, q, r, dp, dq, dr = a, b, c, a, b, c
        for j in (1, 2, 3):
            s = 1e-5 / j
            p, q, r = s * 10 * (q - p), s * (28 * p - q - a * r), s * (a * q - 8 / 3 * r)
            dp, dq, dr = dp + p, dq + q, dr + r
        a, b, c = dp, dq, dr
        if i % 2000 == 0:
            rows[i // 2000] = a, b, c
    return rows


@functools.partial(jax.jit, static_argnums=())
def ekf(y, sensor, q2, r2, start):
    """Filtered means (T, 3)."""

    def update(carry, y):
        x, p = carry
        f = jax.jacfwd(taylor)(x)
        x, p = taylor(x), f @ p @ f.T + q2 * jnp.eye(3)
        s = sensor @ p @ sensor.T + r2 * jnp.eye(3)
        k = jnp.linalg.solve(s, sensor @ p).T
        x, p = x + k @ (y - sensor @ x), p - k @ s @ k.T
        return (x, p), x

    return jax.lax.scan(update, (start, jnp.zeros((3, 3))), y)[1]


def decibel(error) -> float:
    """Mean square in dB."""
    return float(10 * np.log10(np.mean(np.asarray(error) ** 2)))


def turn() -> np.ndarray:
    """One degree about each axis."""
    c, s = math.cos(math.pi / 180), math.sin(math.pi / 180)
    x, y, z = np.eye(3), np.eye(3), np.eye(3)
    x[1:, 1:], y[::2, ::2], z[:2, :2] = [[c, -s], [s, c]], [[c, s], [-s, c]], [[c, -s], [s, c]]
    return z @ y @ x


def windows(x, y, length: int) -> FilterWindow:
    """Pieces that begin at the true state, as the published training does."""
    rows = [
        (x[b, i - 1], y[b, i - 1 : i + length], x[b, i - 1 : i + length])
        for b in range(len(x))
        for i in range(1, x.shape[1] - length, length)
    ]
    start, measured, truth = (np.stack(part) for part in zip(*rows, strict=True))
    shape = measured.shape[:2]
    return FilterWindow(start, np.zeros((*shape, 1)), measured, np.ones(shape, bool), np.ones(shape, bool), truth)


def whole(y) -> FilterWindow:
    """Test sequences from the known first state: a row without measurement stands before them."""
    y = np.concatenate([np.full((len(y), 1, 3), np.nan), y], axis=1)
    shape = y.shape[:2]
    ones = np.ones(shape, bool)
    return FilterWindow(np.ones((len(y), 3)), np.zeros((*shape, 1)), y, ones, ones, np.full(y.shape, np.nan))


def learn(
    kind: str,
    units: int,
    r: float,
    data: FilterWindow,
    *,
    supervised: float,
    iterations: int,
    sensors=None,
    extra: int = 0,
):
    """A trained chain and its theta."""
    system = OwnSystem(lambda x, u, theta: taylor(x), sensors or (lambda x, theta: x))
    scales = Scales(np.full(3, 2 * r), np.full(3, r), CENTRE, SIZE)
    corrector = make_corrector(kind, 3, 3, 3, units=units)
    truths = 3 if supervised else 0
    chain = JaxFilter(system, corrector, scales, parameters=extra, truths=truths, supervised=supervised)
    theta = chain.initial(np.eye(3), np.zeros(extra))
    if truths:
        theta[-3:] = math.log(r)
    began = time.perf_counter()
    found = train(chain, theta, data, iterations=iterations, learning_rate=0.01)
    return chain, found.theta, time.perf_counter() - began


def score(chain, theta, y, x) -> float:
    """Mean square error in dB."""
    run = jax.jit(jax.vmap(lambda p: chain.run(theta, p).states))
    return decibel(run(whole(y)) - x)


def sampling(rng, iterations: int) -> dict:
    """The first task."""
    known, fresh = decimated(3000, (1.0, 1.0, 1.0)), decimated(3000, (-5.0, -7.0, 20.0))[100:]
    train_x = np.broadcast_to(known, (4, *known.shape))
    train_y = train_x + rng.normal(size=train_x.shape)
    test_y = known + rng.normal(size=(10, *known.shape))
    filters = jax.vmap(ekf, in_axes=(0, None, None, None, None))
    grid = {}
    for q in (0.3, 0.35, 0.4, 0.45, 0.5, 0.8):
        grid[q] = decibel(filters(test_y, jnp.eye(3), q * q, 1.0, jnp.ones(3)) - known)
    out = {"ekf_published": -6.43, "kalmannet_published": -11.28, "ekf": min(grid.values()), "ekf_by_q": grid}
    data = windows(train_x, train_y, 100)
    for kind, units in (("mlp", 32), ("recurrent", 24)):
        chain, theta, seconds = learn(kind, units, 1.0, data, supervised=3.0, iterations=iterations)
        fresh_y = fresh + rng.normal(size=(4, *fresh.shape))
        begin = whole(fresh_y)._replace(start=np.broadcast_to(fresh[0], (4, 3)))
        run = jax.vmap(lambda p, chain=chain, theta=theta: chain.run(theta, p).states)(begin)
        out[kind] = {
            "units": units,
            "test": score(chain, theta, test_y, known),
            "fresh": decibel((run - fresh)[:, 1:]),
            "train_seconds": seconds,
        }
        print(kind, out[kind], flush=True)
    fresh_ekf = filters(fresh + rng.normal(size=(4, *fresh.shape)), jnp.eye(3), 0.16, 1.0, jnp.asarray(fresh[0]))
    out["ekf_fresh"] = decibel((fresh_ekf - fresh)[:, 1:])
    return out


def rotation(rng, iterations: int) -> dict:
    """The second task."""
    q, r, sensor = 0.01, 0.1, turn()

    def simulate(count: int, length: int):
        x, rows = np.ones((count, 3)), []
        step = jax.jit(jax.vmap(taylor))
        for _ in range(length):
            x = np.asarray(step(x)) + q * rng.normal(size=x.shape)
            rows.append(x)
        x = np.stack(rows, axis=1)
        return x, x @ sensor.T + r * rng.normal(size=x.shape)

    train_x, train_y = simulate(10, 1000)
    x, y = simulate(20, 2000)
    filters = jax.vmap(ekf, in_axes=(0, None, None, None, None))
    out = {"ekf_published": -18.19, "kalmannet_published": -27.32, "ekf_by_r2": {}}
    for factor in (1.0, 2.0, 5.0):
        out["ekf_by_r2"][factor] = decibel(filters(y, jnp.eye(3), q * q, factor * r * r, jnp.ones(3)) - x)
    out["ekf"] = out["ekf_by_r2"][2.0]
    out["ekf_true_sensor"] = decibel(filters(y, jnp.asarray(sensor), q * q, r * r, jnp.ones(3)) - x)
    data = windows(train_x, train_y, 100)
    chain, theta, seconds = learn("mlp", 32, r, data, supervised=3.0, iterations=iterations)
    out["mlp_supervised"] = {"test": score(chain, theta, y, x), "train_seconds": seconds}

    def turned(x, theta):
        a, b, c = theta
        return x + jnp.cross(jnp.array([a, b, c]), x)

    blind = data._replace(truth=np.full(data.truth.shape, np.nan))
    chain, theta, seconds = learn("gain", 1, r, blind, supervised=0.0, iterations=iterations, sensors=turned, extra=3)
    degrees = np.rad2deg(np.asarray(chain.split(theta)[1])).tolist()
    out["gain_and_sensor_from_measurements"] = {
        "test": score(chain, theta, y, x),
        "train_seconds": seconds,
        "rotation_found_deg": degrees,
    }
    return out


def main() -> None:
    """Run both tasks."""
    parser = argparse.ArgumentParser(description="Lorenz attractor: EKF, KalmanNet, a learned corrector")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--iterations", type=int, default=800)
    parser.add_argument("--task", choices=("sampling", "rotation"), help="only one of them")
    args = parser.parse_args()
    results = begun(args.out)
    for name, task in (("rotation", rotation), ("sampling", sampling)):
        if args.task in (None, name):
            results[name] = task(np.random.default_rng(0), args.iterations)
            args.out.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
