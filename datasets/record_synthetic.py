"""Record `synthetic/two_joint_arm.h5`: a drop-in substitute for the real log dfki_double_pendulum_A0.

    python datasets/record_synthetic.py [--out FILE.h5]

The mechanism simulated here is richer than models/two_joint_arm.xml, the model that examples fit to the log, so that no
example fits its own simulator: the bearings have Stribeck friction (MuJoCo's frictionloss is plain Coulomb), torque
acts one sample late and in steps, positions come from encoders with 2^14 steps a turn, and velocities are noisy and
quantised. Masses and inertias differ from the nominal ones too. The log's attributes hold every true value, named
`truth.<PATH>` where the fitted model has such a parameter. The same seed gives the same bytes.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import mujoco
import numpy as np

from dso_robotics.data.assets import asset
from dso_robotics.data.controls import excitations, sample_times
from dso_robotics.data.log import Log, write_log
from dso_robotics.data.record import Flaws, record

SEED = 20220815
SUBSTEPS = 8  # of 0.25 ms: the steep friction law is applied explicitly
SECONDS = 4.0
TOP = {"multisine": 3.0, "steps": 2.0, "chirp": 2.5}  # Hz
AMPLITUDE = {"tau1": 1.0, "tau2": 0.6}  # N*m

TRUTH = {
    "body/upper/mass": 0.52,
    "body/upper/com[2]": -0.285,
    "body/upper/diaginertia[0]": 0.0042,
    "body/lower/mass": 0.64,
    "body/lower/com[2]": -0.171,
    "body/lower/diaginertia[0]": 0.0040,
    "joint/shoulder/damping": 0.006,
    "joint/elbow/damping": 0.004,
    "joint/shoulder/armature": 0.0024,
    "joint/elbow/armature": 0.0024,
    "joint/shoulder/frictionloss": 0.11,
    "joint/elbow/frictionloss": 0.085,
}
# What the fitted model cannot express.
STATIC = np.array([0.15, 0.115])  # N*m, friction at the onset of sliding; joint/*/frictionloss above is in motion
STRIBECK = 0.15  # rad/s, speed over which it falls from one to the other
SMOOTH = 0.02  # rad/s, width of the sign change
DELAY = 1  # samples from the logged torque to the applied one
QUANTUM = 2 * np.pi / 2**14  # rad
VELOCITY_NOISE = 0.03  # rad/s
VELOCITY_QUANTUM = 0.01  # rad/s
TORQUE_QUANTUM = 2.0**-9  # N*m


def main() -> None:
    """Write the log."""
    parser = argparse.ArgumentParser(description="Record the synthetic log of the two-joint arm.")
    default = Path(__file__).parent / "synthetic" / "two_joint_arm.h5"
    parser.add_argument("--out", type=Path, default=default, help="file to write (default: %(default)s)")
    out = parser.parse_args().out
    out.parent.mkdir(exist_ok=True)
    write_log(out, two_joint_arm(), dtype=np.float32)
    print(f"{out}: {out.stat().st_size / 1000:.0f} kB")


def two_joint_arm() -> Log:
    """Six rollouts of 4 s at 500 Hz, named 00 to 05."""
    model = true_model()
    rng = np.random.default_rng(SEED)
    commands = []
    for kind in ("multisine", "steps", "chirp", "multisine", "steps", "multisine"):
        amplitude = {name: size * rng.uniform(0.7, 1.2) for name, size in AMPLITUDE.items()}
        (_, ctrl), *_ = excitations(
            model, rng, kind, seconds=SECONDS, every=SUBSTEPS, amplitude=amplitude, top=TOP[kind]
        )
        fade = np.minimum(1.0, sample_times(model, SECONDS, SUBSTEPS) / 0.1)
        commands.append((f"{len(commands):02d}", np.round(ctrl * fade[:, None] / TORQUE_QUANTUM) * TORQUE_QUANTUM))
    sliding = np.array([TRUTH["joint/shoulder/frictionloss"], TRUTH["joint/elbow/frictionloss"]])

    def friction(_: mujoco.MjModel, data: mujoco.MjData) -> None:
        speed = data.qvel
        level = sliding + (STATIC - sliding) * np.exp(-((speed / STRIBECK) ** 2))
        data.qfrc_applied[:] = -level * np.tanh(speed / SMOOTH)

    late = [(name, np.concatenate([np.zeros((DELAY, 2)), ctrl[:-DELAY]])) for name, ctrl in commands]
    simulated = record(
        model,
        rng,
        late,
        every=SUBSTEPS,
        flaws=Flaws(
            quantum={"*": VELOCITY_QUANTUM, "shoulder_pos": QUANTUM, "elbow_pos": QUANTUM},
            sensor_noise={"shoulder_vel": VELOCITY_NOISE, "elbow_vel": VELOCITY_NOISE},
        ),
        force=friction,
        spread_qpos=0.3,
    )
    return logged(simulated, commands)


def logged(simulated: Log, commands: list[tuple[str, np.ndarray]]) -> Log:
    """The log as a machine would write it: with the torque that was asked for, not the late one that acted."""
    rollouts = tuple(replace(r, ctrl=ctrl) for r, (_, ctrl) in zip(simulated.rollouts, commands, strict=True))
    truth: dict[str, float | str] = {f"truth.{path}": value for path, value in TRUTH.items()}
    truth |= {
        "truth.units": "SI; com[2] is along the link (com[0] = com[1] = 0), diaginertia = [1, 1, 1/10] * "
        "diaginertia[0]",
        "truth.friction.static_shoulder": float(STATIC[0]),
        "truth.friction.static_elbow": float(STATIC[1]),
        "truth.friction.stribeck_velocity": STRIBECK,
        "truth.torque_delay_samples": float(DELAY),
        "truth.encoder_quantum": QUANTUM,
        "truth.velocity_noise": VELOCITY_NOISE,
        "truth.velocity_quantum": VELOCITY_QUANTUM,
        "truth.torque_quantum": TORQUE_QUANTUM,
        "seed": float(SEED),
    }
    source = (
        "synthetic (datasets/record_synthetic.py): two-joint arm with Stribeck friction, torque delay, encoders, noise"
    )
    return Log("", source, "Apache-2.0", rollouts, truth)


def true_model() -> mujoco.MjModel:
    """models/two_joint_arm.xml with the true parameters, without its own dry friction, at the finer time step."""
    spec = mujoco.MjSpec.from_file(str(asset("models/two_joint_arm.xml")))
    spec.option.timestep /= SUBSTEPS
    for name in ("upper", "lower"):
        body = spec.body(name)
        side = TRUTH[f"body/{name}/diaginertia[0]"]
        body.mass = TRUTH[f"body/{name}/mass"]
        body.ipos = [0.0, 0.0, TRUTH[f"body/{name}/com[2]"]]
        body.inertia = [side, side, side / 10]
    for name in ("shoulder", "elbow"):
        joint = spec.joint(name)
        joint.damping = [TRUTH[f"joint/{name}/damping"], 0.0, 0.0]
        joint.armature = TRUTH[f"joint/{name}/armature"]
        joint.frictionloss = 0.0
    return spec.compile()


if __name__ == "__main__":
    main()
