"""Record `synthetic/cartpole_lab.h5` or `synthetic/arm_lab.h5`: robots that are not what their models say.

    python datasets/record_lab.py ROBOT [--out FILE.h5]

ROBOT is cartpole (models/cartpole_lab.xml) or arm (models/arm_lab.xml). The real drives are weaker, the real pole or payload is
heavier, there is more friction, and two sensors have a bias. There are three recordings of 6 s at 50 Hz under a multisine or
steps. Only the sensors are recorded, with noise; nothing says what the state was. The log's attributes hold every true value,
named `truth.<PATH>`. The same seed gives the same bytes.
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import mujoco
import numpy as np

from dso_robotics.data.assets import asset
from dso_robotics.data.controls import excitations
from dso_robotics.data.log import Log, write_log
from dso_robotics.data.record import Flaws, record

SECONDS, EVERY = 6.0, 2


@dataclass(frozen=True)
class Lab:
    """A robot in the laboratory.

    model: the model that is believed.
    physics: the true numbers, by path, where they are not the model's.
    bias: of the channels [the channel's unit].
    noise: standard deviation of the channels [the channel's unit].
    amplitude: of the recorded controls.
    spread: half-width of the start positions [m, rad].
    """

    model: str
    physics: dict[str, float]
    bias: dict[str, float]
    noise: dict[str, float]
    amplitude: dict[str, float]
    spread: float
    told: str

    @property
    def truth(self) -> dict[str, float]:
        """True numbers of the robot and of its sensors, by path."""
        return self.physics | {f"sensor/{name}/bias": value for name, value in self.bias.items()}


LABS = {
    "cartpole": Lab(
        "models/cartpole_lab.xml",
        {
            "actuator/drive/gear[0]": 6.0,
            "body/pole/mass": 0.2,
            "body/pole/diaginertia[0]+body/pole/diaginertia[1]": 0.0188492,
            "joint/slider/damping": 0.4,
            "joint/hinge/damping": 0.02,
        },
        {"pole_angle": 0.06, "pole_rate": -0.15},
        {"cart_position": 0.005, "pole_angle": 0.01, "pole_rate": 0.1},
        {"drive": 0.6},
        0.3,
        "cart-pole with a weaker drive, a heavier pole and biased sensors",
    ),
    "arm": Lab(
        "models/arm_lab.xml",
        {
            "actuator/shoulder_motor/gear[0]": 6.5,
            "actuator/elbow_motor/gear[0]": 3.5,
            "body/payload/mass": 0.35,
            "body/payload/diaginertia[0]+body/payload/diaginertia[1]+body/payload/diaginertia[2]": 0.000126,
            "joint/shoulder/damping": 0.3,
            "joint/elbow/damping": 0.2,
        },
        {"elbow_angle": 0.08, "elbow_rate": -0.2},
        {"shoulder_angle": 0.01, "elbow_angle": 0.01, "elbow_rate": 0.1},
        {"shoulder_motor": 0.4, "elbow_motor": 0.3},
        0.5,
        "arm with weaker motors, a heavier payload and biased sensors",
    ),
}


def main() -> None:
    """Write the log."""
    parser = argparse.ArgumentParser(description="Record the synthetic log of a robot in the laboratory.")
    parser.add_argument("robot", choices=tuple(LABS))
    parser.add_argument("--out", type=Path, help="file to write (default: synthetic/ROBOT_lab.h5 beside this script)")
    given = parser.parse_args()
    out = given.out or Path(__file__).parent / "synthetic" / f"{given.robot}_lab.h5"
    write_log(out, recorded(given.robot), dtype=np.float32)
    print(f"{out}: {out.stat().st_size / 1000:.0f} kB")


def recorded(robot: str, seed: int = 11) -> Log:
    """Three rollouts of a robot, named 00 to 02."""
    lab, rng = LABS[robot], np.random.default_rng(seed)
    model, commands = true_spec(robot).compile(), []
    for kind in ("multisine", "steps", "multisine"):
        (_, ctrl), *_ = excitations(model, rng, kind, seconds=SECONDS, every=EVERY, amplitude=lab.amplitude, top=1.5)
        commands.append((f"{len(commands):02d}", ctrl))
    log = record(model, rng, commands, every=EVERY, flaws=Flaws(sensor_noise=lab.noise), spread_qpos=lab.spread)
    bias = np.array([lab.bias.get(name, 0.0) for name in log.rollouts[0].sensor_names])
    rollouts = tuple(replace(r, sensordata=np.asarray(r.sensordata) + bias) for r in log.rollouts)
    truth = {f"truth.{path}": value for path, value in lab.truth.items()} | {"seed": float(seed)}
    return Log("", f"synthetic (datasets/record_lab.py): {lab.told}", "Apache-2.0", rollouts, truth)


def true_spec(robot: str) -> mujoco.MjSpec:
    """The model with the true numbers. Inertia grows with mass, as MuJoCo's compiler computes it from the geom."""
    lab = LABS[robot]
    spec = mujoco.MjSpec.from_file(str(asset(lab.model)))
    for path, value in lab.physics.items():
        kind, name, field = path.split("/")[:3]
        if kind == "actuator":
            spec.actuator(name).gear[0] = value
        elif kind == "joint":
            spec.joint(name).damping = [value, 0.0, 0.0]
        elif field == "mass":
            spec.geom(name).mass = value
    return spec


if __name__ == "__main__":
    main()
