"""Record the synthetic logs that the estimators' example studies learn from: an arm with a biased IMU, a leg with a contact.

    python datasets/record_estimates.py [--out FOLDER]

Each mechanism is richer than the model of the same name in models/, which the studies fit: the arm has dry friction, a heavier
lower link, coarse encoders and an IMU that is turned by two degrees and biased; the leg carries a payload, its guide has
dry friction, its floor is softer and its accelerometer is biased. Logs hold the true state, which training does not see
(`supervised` is 0) and the report scores. The same seed gives the same bytes.
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
EVERY = 5  # steps of 2 ms
ENCODER = 2 * np.pi / 2**11  # rad
# gyroscope [rad/s], accelerometer [m/s^2]; the arm moves in the plane of x and z.
ARM_BIAS = {"gyro[1]": 0.06, "accelerometer[0]": 0.35, "accelerometer[2]": -0.25}
LEG_BIAS = {"accelerometer[2]": 0.4}
TURN = np.deg2rad(2.0)


def main() -> None:
    """Write both logs."""
    parser = argparse.ArgumentParser(description="Record the synthetic logs of the estimators' studies.")
    default = Path(__file__).parent / "synthetic"
    parser.add_argument("--out", type=Path, default=default, help="folder to write to (default: %(default)s)")
    folder = parser.parse_args().out
    folder.mkdir(exist_ok=True)
    for name, make in (("arm_imu", arm_imu), ("hopping_leg", hopping_leg)):
        write_log(folder / f"{name}.h5", make(), dtype=np.float32)
        print(f"{folder / name}.h5: {(folder / f'{name}.h5').stat().st_size / 1000:.0f} kB")


def arm_imu() -> Log:
    """Four rollouts of 4 s at 100 Hz."""
    spec = mujoco.MjSpec.from_file(str(asset("models/arm_imu.xml")))
    for name, loss in (("shoulder", 0.12), ("elbow", 0.06)):
        spec.joint(name).frictionloss = loss
    spec.geom("lower").mass = 0.6
    spec.site("tip").quat = [np.cos(TURN / 2), 0.0, np.sin(TURN / 2), 0.0]
    noise = {"gyro": 0.02, "accelerometer": 0.3}
    flaws = Flaws(sensor_noise=noise, quantum={"shoulder_encoder": ENCODER, "elbow_encoder": ENCODER})
    kinds = [("multisine", 1.0), ("steps", 0.7), ("multisine", 0.8), ("chirp", 0.8)]
    return _run(spec.compile(), kinds, 4.0, flaws, ARM_BIAS, spread_qpos=0.5)


def hopping_leg() -> Log:
    """Four rollouts of 4 s at 100 Hz."""
    spec = mujoco.MjSpec.from_file(str(asset("models/hopping_leg.xml")))
    spec.geom("torso").mass = 2.3
    spec.joint("height").frictionloss = 1.0
    for name in ("floor", "foot"):
        spec.geom(name).solref = [0.03, 0.8]
    flaws = Flaws(sensor_noise={"accelerometer": 0.3, "leg_encoder": 0.0005})
    kinds = [("multisine", 1.0), ("steps", 1.0), ("multisine", 0.9), ("multisine", 1.0)]
    return _run(spec.compile(), kinds, 4.0, flaws, LEG_BIAS, spread_qpos=0.02)


def _run(
    model: mujoco.MjModel,
    kinds: list[tuple[str, float]],
    seconds: float,
    flaws: Flaws,
    bias: dict[str, float],
    spread_qpos: float,
) -> Log:
    rng, commands = np.random.default_rng(SEED), []
    names = [model.actuator(i).name for i in range(model.nu)]
    for kind, share in kinds:
        amplitude = {n: share * 0.5 * model.actuator_ctrlrange[i, 1] for i, n in enumerate(names)}
        top = 4.0 if kind == "multisine" else 2.0
        (_, ctrl), *_ = excitations(model, rng, kind, seconds=seconds, every=EVERY, amplitude=amplitude, top=top)
        commands.append((f"{len(commands):02d}", ctrl))
    simulated = record(model, rng, commands, every=EVERY, flaws=flaws, spread_qpos=spread_qpos, keep_state=True)
    rollouts = []
    for rollout in simulated.rollouts:
        offset = np.array([bias.get(name, 0.0) for name in rollout.sensor_names])
        rollouts.append(replace(rollout, sensordata=rollout.sensordata + offset))
    truth: dict[str, float | str] = {f"truth.sensor/{name}/bias": value for name, value in bias.items()}
    source = "synthetic (datasets/record_estimates.py)"
    return Log("", source, "Apache-2.0", tuple(rollouts), truth | {"seed": float(SEED)})


if __name__ == "__main__":
    main()
