"""A user-defined friction law, for a real hobby servo: friction increases with the load on the gears and decreases with speed.

MuJoCo's joints have constant dry friction. Here a law sets it at every step of the C engine. The parameters of the law,
the motor and the arm are identified together from 12 of 16 recorded runs. The other 4 are simulated from their first
sample to their end.

Run: python examples/servo.py
"""

import numpy as np

from dso_robotics.core.method.gauss_newton import solve
from dso_robotics.core.method.least_squares import Settings
from dso_robotics.costs.identification import WindowedIdentification
from dso_robotics.data.assets import asset
from dso_robotics.data.match import match_channels
from dso_robotics.data.registry import fetch
from dso_robotics.data.split import hold_out
from dso_robotics.data.windows import cut
from dso_robotics.parameters.family import Slot
from dso_robotics.parameters.parameter import Parameter
from dso_robotics.parameters.path import parse
from dso_robotics.parameters.vector import ParameterVector, pack
from dso_robotics.physics.friction import FrictionEngine, Moment
from dso_robotics.physics.model import load
from dso_robotics.robot import start
from dso_robotics.robot.prediction import CPrediction

MODEL, SECONDS = "models/xl330_servo.xml", 5.99
# Four firmware gains with four trajectories each. Held out is the diagonal: every gain and every trajectory once.
HOLD_OUT = "kp100_sin_sin,kp200_lift_and_drop,kp400_up_and_down,kp800_sin_time_square"
# Starts are the values published for another servo of this kind (model M6).
FREE = (
    "actuator/target/gain+actuator/feedback/kp_per_ctrl+tendon/drive/actuatorfrcrange=0.908",
    *("actuator/powered/kv_per_ctrl=0.0399", "joint/horn/damping=0.0081", "joint/horn/frictionloss=0.006"),
    *("joint/horn/armature=0.00196", "body/arm/ipos[0]=0.00136"),
)
# The law's numbers, with start, bounds and typical size: shares of the motor's torque and of the load that become friction; at
# rest, on top, shares of both and a torque [N m]; the speed [rad/s] that fades those, and how sharply.
LAW = {
    **{"by_motor": (0.429, 0, 1, 0.1), "by_load": (0.0021, 0, 1, 0.1)},
    **{"rest_motor": (0.0006, 0, 1, 0.1), "rest_load": (0.189, 0, 1, 0.1), "rest": (0.0016, 0, 0.1, 0.01)},
    **{"fading_speed": (2.58, 0.05, 20, 0.5), "sharpness": (2.92, 0.5, 10, 0.5)},
}


def gearbox(at: Moment) -> tuple[np.ndarray, None]:
    """Limit of the dry friction: a constant, and shares of the load on the gears (arXiv 2410.08650, model M5)."""
    gain, speed = at.field("actuator_gainprm"), at.qvel[:, 0]
    duty = np.clip(at.ctrl[:, 0] - at.ctrl[:, 1] * at.qpos[:, 0], -1, 1)
    motor, load = gain[:, 0, 0] * duty + gain[:, 2, 2] * speed * at.ctrl[:, 2], -at.bias[:, 0]
    by_motor, by_load, rest_motor, rest_load, rest, fading, sharpness = at.field("jnt_user")[:, 0].T
    moving = at.field("dof_frictionloss")[:, 0] + np.abs(by_load * load - by_motor * motor)
    still = np.exp(-((np.abs(speed) / fading) ** sharpness))
    return (moving + still * (rest + np.abs(rest_load * load - rest_motor * motor)))[:, None], None


def number(index: int, name: str) -> Parameter:
    """A parameter of the law: user data of the joint."""
    value, low, high, scale = (np.array([float(x)]) for x in LAW[name])
    slots = (Slot("jnt_user", (index,)),)
    return Parameter(
        name=f"law/{name}", units=("",), nominal=value, initial=value, low=low, high=high, scale=scale, slots=slots
    )


def main(runs: int | None = None, seconds: float = SECONDS, iterations: int = 25) -> dict[str, dict[str, float]]:
    # Model and parameters.
    robot = load(asset(MODEL))
    plain = pack([parse(path) for path in FREE], robot)
    vector = ParameterVector((*plain.parameters, *(number(i, name) for i, name in enumerate(LAW))), plain.mj)

    # Data: whole runs, simulated from the recorded first sample.
    log = fetch("bam_xl330")
    channels = match_channels(log, robot.mj)
    split = hold_out(log, HOLD_OUT)

    def problem(rollouts):
        windows = cut(rollouts, channels, timestep=robot.mj.opt.timestep, seconds=seconds)
        prediction = CPrediction(vector, windows, engine=FrictionEngine(vector.mj, gearbox))
        # Cost: squared errors of the angle, every run alike; the speed (differences of a coarse angle) hardly counts.
        settings = {"sigma": np.array([0.05, 5.0]), "learn_noise": False, "free_starts": False}
        return WindowedIdentification(vector, windows, prediction, **settings), start.guess(windows, robot.mj)

    # Optimise.
    train, x = problem(split.train[:runs])
    settings = Settings(iterations=iterations, cost_tolerance=1e-4)
    bounds = {"low": vector.low, "high": vector.high, "scale": vector.scale}
    found = solve(train, vector.initial, x, **bounds, settings=settings)

    # Show.
    numbers, errors = {path: float(value) for path, (value, _) in vector.report(found.z).items()}, {}
    for path, value in numbers.items():
        print(f"{path.split('+')[0]:34s} {value:10.5f}")
    for name, rollouts in (("fitted", split.train[:runs]), ("held out", split.hold_out[:runs])):
        cost, x = problem(rollouts)
        error = np.where(np.isfinite(cost.windows.measured), cost.error(found.z, x), np.nan)[..., 0]
        errors[name] = float(np.mean(np.nanmean(np.abs(error), axis=1)))
        print(f"{name}: mean error of the angle {errors[name]:.4f} rad over {len(rollouts)} runs of {seconds:g} s")
    return {"parameters": numbers, "errors": errors}


if __name__ == "__main__":
    main()
