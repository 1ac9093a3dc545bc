"""The page of quantities that costs and terminations read, with units, on a model with one of everything."""

import mujoco

from dso_robotics.costs.body_quantity import readers
from dso_robotics.costs.motor_quantity import FIELDS as MOTOR_FIELDS
from dso_robotics.costs.quantity import quantity
from dso_robotics.errors import DsoError
from dso_robotics.physics.model import load
from website.paths import EVERYTHING

_HEAD = """\
# Quantities

What `quantity`, `point` and `target` of a [cost](../studies.md) and `[terminate.NAME]` of a training can name. `NAME[k]` is component k of a
quantity with several numbers, such as `sensor/gyro[2]`. Numbers marked 1 have no unit. `dso identify` does not use them.

| quantity | unit | is |
| --- | --- | --- |
"""
TOLD = {
    "joint/hinge/position": ("joint/J/position", "of a hinge or a slide"),
    "joint/hinge/velocity": ("joint/J/velocity", "of a hinge or a slide"),
    "joint/hinge/cosine": ("joint/J/cosine", "of the angle of a hinge"),
    "joint/hinge/sine": ("joint/J/sine", "of the angle of a hinge"),
    "joint/hinge/limit": ("joint/J/limit", "how far the joint is into the last tenth of its range, 0 before that"),
    "joint/hinge/power": ("joint/J/power", "of the motors on the joint"),
    "actuator/motor/force": ("actuator/A/force", "before the gear: the torque of a joint is this times the gear"),
    "actuator/motor/speed": ("actuator/A/speed", "before the gear: the speed of a joint times the gear"),
    "actuator/motor/power": ("actuator/A/power", "force times speed"),
    "site/tip/x": ("site/S/x, y, z", "place of a site in the world"),
    "sensor/gyro": ("sensor/S", "reading of a sensor of the model, in its unit"),
    "control": ("control", "of all actuators, -1 to 1 within their ranges"),
    "action_change": ("action_change", "change of the control since the last control step, in the same unit"),
    "mass": ("mass", "of the whole robot"),
}
_BODIES = {
    "height": "height of the body's frame",
    "upright": "cosine of the angle between the body's z axis and the vertical",
    "gravity": "direction of gravity in the body, three numbers",
    "tilt": "angle between the body's z axis and the vertical",
    "heading": "direction of the body's x axis, seen from above",
    "velocity": "of the centre of mass in the world, three numbers",
    "spin": "in the world, three numbers",
    "velocity_body": "in the body's frame",
    "spin_body": "in the body's frame",
    "velocity_heading": "in the frame that stands upright and looks where the body's x axis points",
    "spin_heading": "in the same frame",
}


def page() -> str:
    """The whole page, in Markdown. A quantity that the code no longer has raises KeyError."""
    robot = load(mujoco.MjSpec.from_string(EVERYTHING))
    rows = []
    for name, (shown, told) in TOLD.items():
        try:
            unit = quantity(name, robot).unit
        except DsoError as error:
            raise KeyError(f"website/quantities.py: {error}") from error
        rows.append(f"| `{shown}` | {unit or 'its own'} | {told} |")
    for name, (unit, _) in readers(1).items():
        told = _BODIES.get(name, "place" if len(name) == 1 else "speed along an axis of the world")
        rows.append(f"| `body/B/{name}` | {unit} | {told}{', of the centre of mass' if len(name) < 3 else ''} |")
    for name, (unit, told) in MOTOR_FIELDS.items():
        rows.append(f"| `motor/M/{name}` | {unit} | {told}; of a [motor](../motors.md), not in `[terminate.NAME]` |")
    rows.append("| `task/NAME` | its own | the number `[task.NAME]` of this episode |")
    return _HEAD + "\n".join(rows) + "\n"
