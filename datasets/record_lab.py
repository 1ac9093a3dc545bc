"""Record `synthetic/cartpole_lab.h5`: a cart-pole whose drive, pole, friction and sensors are not those of its model.

    python datasets/record_lab.py [--out FILE.h5]

The model is models/cartpole_lab.xml. The real drive is weaker and the real pole heavier, and two sensors have a bias. There are
three recordings of 6 s at 50 Hz under a multisine or steps. The pole falls from near its top and swings. Only the sensors are
recorded, with noise; nothing says what the state was. The log's attributes hold every true value, named `truth.<PATH>`. The
same seed gives the same bytes.
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

SECONDS, EVERY, AMPLITUDE = 6.0, 2, {"drive": 0.6}
TRUTH = {
    "actuator/drive/gear[0]": 6.0,
    "body/pole/mass": 0.2,
    "body/pole/diaginertia[0]": 0.0188492,
    "body/pole/diaginertia[1]": 0.0188492,
    "joint/slider/damping": 0.4,
    "joint/hinge/damping": 0.02,
}
BIAS = {"sensor/pole_angle/bias": 0.06, "sensor/pole_rate/bias": -0.15}
NOISE = {"cart_position": 0.005, "pole_angle": 0.01, "pole_rate": 0.1}  # m, rad, rad/s


def main() -> None:
    """Write the log."""
    parser = argparse.ArgumentParser(description="Record the synthetic log of the cart-pole in the laboratory.")
    default = Path(__file__).parent / "synthetic" / "cartpole_lab.h5"
    parser.add_argument("--out", type=Path, default=default, help="file to write (default: %(default)s)")
    out = parser.parse_args().out
    write_log(out, lab(), dtype=np.float32)
    print(f"{out}: {out.stat().st_size / 1000:.0f} kB")


def lab(seed: int = 11) -> Log:
    """Three rollouts, named 00 to 02."""
    model, rng = true_model(), np.random.default_rng(seed)
    commands = []
    for kind in ("multisine", "steps", "multisine"):
        (_, ctrl), *_ = excitations(model, rng, kind, seconds=SECONDS, every=EVERY, amplitude=AMPLITUDE, top=1.5)
        commands.append((f"{len(commands):02d}", ctrl))
    log = record(model, rng, commands, every=EVERY, flaws=Flaws(sensor_noise=NOISE), spread_qpos=0.3)
    bias = np.array([BIAS.get(f"sensor/{name}/bias", 0.0) for name in log.rollouts[0].sensor_names])
    rollouts = tuple(replace(r, sensordata=np.asarray(r.sensordata) + bias) for r in log.rollouts)
    truth = {f"truth.{path}": value for path, value in (TRUTH | BIAS).items()} | {"seed": float(seed)}
    source = "synthetic (datasets/record_lab.py): cart-pole with a weaker drive, a heavier pole and biased sensors"
    return Log("", source, "Apache-2.0", rollouts, truth)


def true_spec() -> mujoco.MjSpec:
    """models/cartpole_lab.xml with the true parameters; the pole's inertia grows with its mass."""
    spec = mujoco.MjSpec.from_file(str(asset("models/cartpole_lab.xml")))
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
