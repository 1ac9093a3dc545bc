"""Record `synthetic/cartpole.h5`: a cart-pole that is not quite models/cartpole.xml.

    python datasets/record_cartpole.py [--out FILE.h5]

The rail has friction that grows with speed, the drive is weaker and the pole heavier than the model says. Four runs of 4 s at
100 Hz under a multisine or steps, the pole falling from near its top; all that is recorded has noise.
The log's attributes hold every true value, named `truth.<PATH>`. The same seed gives the same bytes.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import mujoco
import numpy as np

from dso_robotics.data.assets import asset
from dso_robotics.data.controls import excitations
from dso_robotics.data.log import Log, write_log
from dso_robotics.data.record import Flaws, record

SEED = 7
SECONDS = 4.0
AMPLITUDE = {"drive": 0.8}
TRUTH = {
    "actuator/drive/gear[0]": 7.0,
    "body/pole/mass": 0.2,
    "body/pole/diaginertia[1]": 0.0188492,
    "joint/slider/damping": 0.8,
    "joint/hinge/damping": 0.02,
}
POSITION_NOISE = 1e-3  # m, rad
VELOCITY_NOISE = 0.02  # m/s, rad/s
DIRECTION_NOISE = 2e-3  # of a unit vector


def main() -> None:
    """Write the log."""
    parser = argparse.ArgumentParser(description="Record the synthetic log of the cart-pole.")
    default = Path(__file__).parent / "synthetic" / "cartpole.h5"
    parser.add_argument("--out", type=Path, default=default, help="file to write (default: %(default)s)")
    out = parser.parse_args().out
    write_log(out, cartpole(), dtype=np.float32)
    print(f"{out}: {out.stat().st_size / 1000:.0f} kB")


def cartpole() -> Log:
    """Four rollouts of 4 s at 100 Hz, named 00 to 03; their states are as noisy as the sensors."""
    model, rng = true_model(), np.random.default_rng(SEED)
    commands = []
    for kind in ("multisine", "steps", "multisine", "steps"):
        (_, ctrl), *_ = excitations(model, rng, kind, seconds=SECONDS, every=1, amplitude=AMPLITUDE, top=2.0)
        commands.append((f"{len(commands):02d}", ctrl))
    sensor_noise = {
        "cart_position": POSITION_NOISE,
        "cart_velocity": VELOCITY_NOISE,
        "pole_velocity": VELOCITY_NOISE,
        "pole_axis": DIRECTION_NOISE,
    }
    log = record(model, rng, commands, flaws=Flaws(sensor_noise=sensor_noise), spread_qpos=0.3, keep_state=True)
    rollouts = tuple(
        replace(
            r,
            qpos=np.asarray(r.qpos) + POSITION_NOISE * rng.standard_normal((len(r.time), model.nq)),
            qvel=np.asarray(r.qvel) + VELOCITY_NOISE * rng.standard_normal((len(r.time), model.nv)),
        )
        for r in log.rollouts
    )
    truth: dict[str, float | str] = {f"truth.{path}": value for path, value in TRUTH.items()} | {"seed": float(SEED)}
    source = "synthetic (datasets/record_cartpole.py): cart-pole with rail friction, a weaker drive and a heavier pole"
    return Log("", source, "Apache-2.0", rollouts, truth)


def true_spec() -> mujoco.MjSpec:
    """models/cartpole.xml with the true parameters; the pole's inertia grows with its mass."""
    spec = mujoco.MjSpec.from_file(str(asset("models/cartpole.xml")))
    spec.actuator("drive").gear[0] = TRUTH["actuator/drive/gear[0]"]
    spec.geom("pole").mass = TRUTH["body/pole/mass"]
    for name in ("slider", "hinge"):
        spec.joint(name).damping = [TRUTH[f"joint/{name}/damping"], 0.0, 0.0]
    return spec


def true_model() -> mujoco.MjModel:
    """`true_spec`, compiled."""
    return true_spec().compile()


if __name__ == "__main__":
    main()
