"""Servos that others identified, by name: published numbers as start values and priors of the joints that they drive.

Each is one file in `servos/`: title, source, licence and, at the horn, after the servo's own gears,

    [armature]                    # also: friction, viscous, motorconst, resistance
    value = 0.0018
    unit = "kg*m^2"
    interval = [0.0017, 0.0019]   # where the source has one; the file's key `interval` says of what kind

A number without an interval is a start value. One with an interval has a log-normal prior about its value, whose standard
deviation reaches the farther end: servos of one type differ among themselves.
"""

import dataclasses
import functools
import math
import tomllib
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import Any

import mujoco

from dso_robotics.errors import DsoError, nearest
from dso_robotics.parameters.path import Declaration, escape, matches, resolve, tied
from dso_robotics.physics.model import Robot

_HINGE, _OF_JOINT = int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtTrn.mjTRN_JOINT)
_DCMOTOR, _AFFINE = int(mujoco.mjtGain.mjGAIN_DCMOTOR), int(mujoco.mjtBias.mjBIAS_AFFINE)


@dataclasses.dataclass(frozen=True)
class Known:
    """A published number [unit], with its interval if the source has one."""

    value: float
    unit: str
    interval: tuple[float, float] | None = None

    @property
    def prior(self) -> tuple[float, float] | None:
        """Median, and standard deviation of the logarithm, which reaches the farther end of the interval."""
        if self.interval is None:
            return None
        low, high = self.interval
        return self.value, max(math.log(high / self.value), math.log(self.value / low))


@dataclasses.dataclass(frozen=True)
class Servo:
    """A servo: armature, dry friction and viscous friction at its horn; torque constant and resistance of its motor."""

    name: str
    title: str
    source: str
    licence: str
    armature: Known
    friction: Known
    viscous: Known
    motorconst: Known
    resistance: Known

    @property
    def back_emf(self) -> float:
        """Damping of the powered motor [N*m*s/rad]: torque constant squared over resistance."""
        return self.motorconst.value**2 / self.resistance.value


@functools.cache
def servos() -> dict[str, Servo]:
    """All servos of the library by name."""
    folder = resources.files("dso_robotics.parameters") / "servos"
    texts = {f.name.removesuffix(".toml"): f.read_text("utf-8") for f in folder.iterdir() if f.name.endswith(".toml")}
    return {name: _servo(name, tomllib.loads(texts[name])) for name in sorted(texts)}


def _servo(name: str, table: dict[str, Any]) -> Servo:
    numbers = {key: Known(v["value"], v["unit"], tuple(i) if (i := v.get("interval")) else None) for key, v in table.items()
               if isinstance(v, dict)}  # fmt: skip
    return Servo(name, table["title"], table["source"], table["licence"], **numbers)


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A servo that the user says an actuator is, and the numbers that it frees."""

    servo: Servo
    actuator: str
    declarations: tuple[Declaration, ...]

    def __str__(self) -> str:
        """What was put where, and from which source."""
        shown = (
            ", ".join(f"{d.path}={d.init:.4g}" for d in self.declarations) or "nothing that is not given with --free"
        )
        of = f"{self.servo.source}, {self.servo.licence}"
        return f"{self.actuator} is taken for a {self.servo.title}: the search starts from {shown}. Source: {of}."


def fit_servos(texts: Iterable[str], robot: Robot, free: Sequence[Declaration]) -> list[Fitted]:
    """The servos of `texts`, each SERVO or SERVO=ACTUATOR with wildcards, on the actuators of `robot`.

    free: what the user declares; those numbers are left as they are.

    Raises:
      DsoError: there is no such servo or actuator, or an actuator does not drive a hinge as a servo does.
    """
    taken = {target.path for declared in free for part in tied(declared.path) for target in _targets(part, robot)}
    found: list[Fitted] = []
    for text in texts:
        name, equals, pattern = text.partition("=")
        if name not in servos():
            raise DsoError(
                f"--actuator {text}: there is no servo '{name}' in the library; it has {', '.join(servos())}."
            )
        actuators = robot.names("actuator")
        mine = [i for i, a in enumerate(actuators) if a and matches(a, pattern if equals else "*")]
        if not mine:
            raise DsoError(
                f"--actuator {text}: {robot.source} has no actuator called '{pattern if equals else '*'}'; it has "
                f"{nearest(pattern, actuators, 6) or 'none with a name'}."
            )
        for i in mine:
            if any(one.actuator == actuators[i] for one in found):
                raise DsoError(f"--actuator {text}: '{actuators[i]}' is given two servos; name the actuators of each.")
            found.append(_fitted(servos()[name], i, robot, taken, text))
    return found


def _targets(path: str, robot: Robot) -> Iterable[Any]:
    try:
        return resolve(path, robot)
    except DsoError:  # told where the path is used
        return ()


def _fitted(servo: Servo, i: int, robot: Robot, taken: set[str], text: str) -> Fitted:
    model, actuator = robot.mj, robot.names("actuator")[i]
    joint = int(model.actuator_trnid[i, 0])
    if (
        int(model.actuator_trntype[i]) != _OF_JOINT
        or int(model.jnt_type[joint]) != _HINGE
        or not robot.names("joint")[joint]
    ):
        raise DsoError(f"--actuator {text}: '{actuator}' drives no named hinge; name the actuators that are servos.")
    if abs(model.actuator_gear[i, 0]) != 1:
        raise DsoError(
            f"--actuator {text}: '{actuator}' has gear {model.actuator_gear[i, 0]:g}, a reduction or a unit of its control, "
            "and the library's numbers are those at the horn; write gear 1, or give the numbers with --free."
        )
    place, motor = f"joint/{escape(robot.names('joint')[joint])}", f"actuator/{escape(actuator)}"
    values = {f"{place}/armature": servo.armature, f"{place}/frictionloss": servo.friction}
    electric = int(model.actuator_gaintype[i]) == _DCMOTOR
    braked = electric or (int(model.actuator_biastype[i]) == _AFFINE and model.actuator_biasprm[i, 2] != 0)
    # A powered motor brakes by its back EMF. A <dcmotor> and a servo with kv do that themselves.
    damping = servo.viscous if braked else Known(servo.viscous.value + servo.back_emf, servo.viscous.unit)
    values[f"{place}/damping"] = damping
    if electric:
        values |= {f"{motor}/resistance": servo.resistance, f"{motor}/motorconst": servo.motorconst}
    declared = []
    for path, known in values.items():
        if path not in taken:
            declared.append(Declaration(path, init=known.value, prior=known.prior, log_prior=known.prior is not None))
    return Fitted(servo, actuator, tuple(declared))
