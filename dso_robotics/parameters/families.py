"""The parameters that can be freed: one `Family` for each KIND/NAME/FIELD of MJCF, with unit, bounds and model fields.

To add a parameter path, call `register` once, here or in any file that is imported before a study is read. No other code
needs to change: paths, bounds and priors, both engines and the written model.xml use the family.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np

from dso_robotics.physics import export
from dso_robotics.physics.unit import sensor_unit
from dso_robotics.registry import Registry

INF = float("inf")
# NumPy integers do not compare equal to MuJoCo's enums, so the enums are turned into integers.
_SLIDE = int(mujoco.mjtJoint.mjJNT_SLIDE)
_FILTERS = (int(mujoco.mjtDyn.mjDYN_FILTER), int(mujoco.mjtDyn.mjDYN_FILTEREXACT))
_FIXED, _AFFINE = int(mujoco.mjtGain.mjGAIN_FIXED), int(mujoco.mjtBias.mjBIAS_AFFINE)


@dataclasses.dataclass(frozen=True)
class Slot:
    """Where one number is stored: `sign` times the number is written to model.`field` at each flat index in `at`."""

    field: str
    at: tuple[int, ...]
    sign: float = 1.0


@dataclasses.dataclass(frozen=True)
class Family:
    """One field of one kind of object.

    unit: (model, object id, component) -> unit of one number.
    width: how many numbers the MJCF attribute has. If more than one, each has its own path `field[i]`.
    places: (model, object id, component) -> slots, in MuJoCo's model or in `signals.NOMINAL`.
    low, high: physical bounds, used when the user gives none.
    reach: an upper bound instead of an infinite `high`, for quantities whose largest value costs memory or time. A user
      may give a larger one.
    scale: (model, object id) -> typical size, used as the step unit if the value itself is zero.
    refuse: (model, object id) -> why that object cannot have this field, or an empty string.
    mjcf: (field of MjModel, attribute of MJCF) if the slots are in a field that `physics.export` does not write. An
      object's row of the field is then the attribute. None otherwise.
    """

    kind: str
    field: str
    unit: Callable[[mujoco.MjModel, int, int], str]
    places: Callable[[mujoco.MjModel, int, int], tuple[Slot, ...]]
    text: str
    width: int | Callable[[mujoco.MjModel, int], int] = 1
    low: float = 0.0
    high: float = INF
    reach: float = INF
    scale: Callable[[mujoco.MjModel, int], float] = lambda model, i: 1.0
    refuse: Callable[[mujoco.MjModel, int], str] = lambda model, i: ""
    mjcf: tuple[str, str] | None = None

    @property
    def label(self) -> str:
        """KIND/FIELD, as shown in messages."""
        return f"{self.kind}/{self.field}"

    def components(self, model: mujoco.MjModel, index: int) -> int:
        """How many numbers object `index` has of this family that can be freed."""
        return self.width(model, index) if callable(self.width) else self.width


FAMILIES: Registry[Family] = Registry("parameter")


def register(family: Family) -> Family:
    """Register a family under its label KIND/FIELD.

    Raises:
      DsoError: another family has the label.
    """
    FAMILIES.register(family.label)(family)
    if family.mjcf is not None:
        field, attribute = family.mjcf
        export.ATTRIBUTES.setdefault(field, (family.kind, attribute))
    return family


def _units(*units: str) -> Callable[[mujoco.MjModel, int, int], str]:
    """One unit for each component. The last unit also applies to all later components."""
    return lambda model, i, k: units[min(k, len(units) - 1)]


def _per_joint(rotary: str, linear: str) -> Callable[[mujoco.MjModel, int, int], str]:
    both = f"{linear} and {rotary}"  # one number for the six directions of a free joint
    return lambda model, i, k: {0: both, _SLIDE: linear}.get(int(model.jnt_type[i]), rotary)


def _dofs(model: mujoco.MjModel, joint: int) -> range:
    first = int(model.jnt_dofadr[joint])
    return range(first, first + {0: 6, 1: 3, 2: 1, 3: 1}[int(model.jnt_type[joint])])


def _dof(field: str) -> Callable[[mujoco.MjModel, int, int], tuple[Slot, ...]]:
    return lambda model, i, k: (Slot(field, tuple(_dofs(model, i))),)


def _polynomial(power: int) -> Callable[[mujoco.MjModel, int, int], tuple[Slot, ...]]:
    return lambda model, i, k: (Slot("dof_dampingpoly", tuple(2 * dof + power for dof in _dofs(model, i))),)


def _row(field: str, width: int = 1, *, column: int = 0) -> Callable[[mujoco.MjModel, int, int], tuple[Slot, ...]]:
    return lambda model, i, k: (Slot(field, (i * width + column + k,)),)


def _reflected_inertia(model: mujoco.MjModel, joint: int) -> float:
    """Inertia seen by the joint at qpos0 [kg m^2 or kg]: the natural unit of its armature, damping and stiffness."""
    return float(np.mean(model.dof_M0[list(_dofs(model, joint))]))


def _joint_scale(factor: float) -> Callable[[mujoco.MjModel, int], float]:
    return lambda model, i: factor * _reflected_inertia(model, i)


def _body_size(model: mujoco.MjModel, body: int) -> float:
    """Radius of gyration [m]."""
    return float(np.sqrt(max(model.body_inertia[body].max(), 1e-12) / max(model.body_mass[body], 1e-12)))


def _servo(model: mujoco.MjModel, i: int, k: int) -> tuple[Slot, ...]:
    return (Slot("actuator_gainprm", (i * 10,)), Slot("actuator_biasprm", (i * 10 + 1,), -1.0))


def _affine_servo(model: mujoco.MjModel, i: int, k: int) -> tuple[Slot, ...]:
    return (Slot("actuator_biasprm", (i * 10 + 2,), -1.0),)


def _feedback(column: int) -> Callable[[mujoco.MjModel, int, int], tuple[Slot, ...]]:
    return lambda model, i, k: (Slot("actuator_gainprm", (i * 10 + column,), -1.0),)


def _feedback_scale(model: mujoco.MjModel, i: int, column: int) -> float:
    return float(abs(model.actuator_gainprm[i, column])) or 1.0


def _gain_scale(model: mujoco.MjModel, i: int) -> float:
    return float(abs(model.actuator_gainprm[i, 0])) or 1.0


def _channel(field: str) -> Callable[[mujoco.MjModel, int, int], tuple[Slot, ...]]:
    return lambda model, i, k: (Slot(field, (int(model.sensor_adr[i]) + k,)),)


def _sensor_width(model: mujoco.MjModel, i: int) -> int:
    return int(model.sensor_dim[i])


def _nowhere(model: mujoco.MjModel, i: int, k: int) -> tuple[Slot, ...]:
    return ()


def _joint_gear(model: mujoco.MjModel, i: int) -> int:
    """Joints and tendons of one number use the first entry of gear alone."""
    kind = int(model.actuator_trntype[i])
    several = kind in (int(mujoco.mjtTrn.mjTRN_SITE), int(mujoco.mjtTrn.mjTRN_BODY))
    if kind in (int(mujoco.mjtTrn.mjTRN_JOINT), int(mujoco.mjtTrn.mjTRN_JOINTINPARENT)):
        several = int(model.jnt_type[model.actuator_trnid[i, 0]]) <= 1
    return 6 if several else 1


def _length(model: mujoco.MjModel, i: int) -> float:
    return 0.01 * float(model.stat.extent)


def _tendon_scale(model: mujoco.MjModel, i: int) -> float:
    return 1.0 / max(float(model.tendon_invweight0[i]), 1e-6)


def _needs(holds: Callable[[mujoco.MjModel, int], Any], reason: str) -> Callable[[mujoco.MjModel, int], str]:
    """A function that returns the reason if the condition does not hold for an object."""
    return lambda model, i: "" if holds(model, i) else reason


_FIXED_GAIN = _needs(lambda m, i: m.actuator_gaintype[i] == _FIXED, "its gain is not a fixed number")
_AFFINE_GAIN = _needs(
    lambda m, i: m.actuator_gaintype[i] == int(mujoco.mjtGain.mjGAIN_AFFINE),
    'its gaintype is not "affine", so MuJoCo would ignore the value; write gaintype="affine" in the model',
)
_POSITION_SERVO = _needs(
    lambda m, i: m.actuator_biastype[i] == _AFFINE and m.actuator_biasprm[i, 1] == -m.actuator_gainprm[i, 0],
    "it is not a position servo (gainprm[0] = -biasprm[1]); free its 'gain' instead",
)
_AFFINE_BIAS = _needs(
    lambda m, i: m.actuator_biastype[i] == _AFFINE,
    'its biastype is not "affine", so MuJoCo would ignore the value; write biastype="affine" in the model',
)
_FILTERED = _needs(
    lambda m, i: m.actuator_dyntype[i] in _FILTERS,
    'its dyntype is not "filter" or "filterexact", so it has no time constant',
)
_TIME_CONSTANT = _needs(
    lambda m, i: (m.geom_solref[i] > 0).all(),
    "its solref is in the direct format (negative stiffness and damping); write (timeconst, dampratio)",
)
_ONE_WAY = _needs(lambda m, i: m.jnt_type[i] > 1, "only hinge and slide joints are supported for this field")
_LIMITED = _needs(
    lambda m, i: m.tendon_actfrclimited[i],
    "the force of its actuators is not limited; write actuatorfrcrange in the model",
)
_MASSIVE = _needs(lambda m, i: m.body_mass[i] > 0, "the body has no mass, so it is fixed to its parent or static")

for _family in (
    Family("joint", "damping", _per_joint("N*m*s/rad", "N*s/m"), _dof("dof_damping"), "viscous friction",
           scale=_joint_scale(1.0)),
    Family("joint", "damping_quadratic", _per_joint("N*m*s^2/rad^2", "N*s^2/m^2"), _polynomial(0),
           "drag with the square of the speed", scale=_joint_scale(0.1)),
    Family("joint", "damping_cubic", _per_joint("N*m*s^3/rad^3", "N*s^3/m^3"), _polynomial(1),
           "drag with the cube of the speed", scale=_joint_scale(0.01)),
    Family("joint", "frictionloss", _per_joint("N*m", "N"), _dof("dof_frictionloss"), "Coulomb friction",
           scale=_joint_scale(3.0)),
    Family("joint", "armature", _per_joint("kg*m^2", "kg"), _dof("dof_armature"), "reflected rotor inertia",
           scale=_joint_scale(0.3)),
    Family("joint", "stiffness", _per_joint("N*m/rad", "N/m"), _row("jnt_stiffness"), "spring stiffness",
           scale=_joint_scale(3.0),
           refuse=_ONE_WAY),
    Family("joint", "springref", _per_joint("rad", "m"),
           lambda model, i, k: (Slot("qpos_spring", (int(model.jnt_qposadr[i]),)),), "spring rest position",
           low=-INF, scale=lambda model, i: 0.1,
           refuse=_ONE_WAY),
    Family("body", "mass", _units("kg"), _row("body_mass"), "mass; centre of mass and inertia stay",
           scale=lambda model, i: float(model.body_mass[i]),
           refuse=_MASSIVE),
    Family("body", "ipos", _units("m"), _row("body_ipos", 3), "centre of mass in the body frame", width=3, low=-INF,
           scale=_body_size,
           refuse=_MASSIVE),
    Family("body", "diaginertia", _units("kg*m^2"), _row("body_inertia", 3), "principal moments of inertia", width=3,
           scale=lambda model, i: float(model.body_inertia[i].max()),
           refuse=_MASSIVE),
    Family("body", "pos", _units("m"), _row("body_pos", 3), "position of the body frame in its parent", width=3, low=-INF,
           scale=_length,
           refuse=_MASSIVE),
    Family("body", "rot", _units("rad"), _row("body_turn", 3), "turn from the model's orientation, own axes", width=3,
           low=-INF,
           refuse=_MASSIVE),
    Family("body", "gravcomp", _units("1"), _row("body_gravcomp"), "share of the weight that is carried", low=-INF,
           scale=lambda model, i: 0.1,
           refuse=_MASSIVE),
    Family("geom", "friction", _units("1", "m"), _row("geom_friction", 3),
           "sliding [1], torsional [m], rolling [m] friction", width=3, scale=lambda model, i: 0.1),
    Family("geom", "solref", _units("s", "1"), _row("geom_solref", 2),
           "contact: time constant [s] and damping ratio [1]", width=2, scale=lambda model, i: 0.01,
           refuse=_TIME_CONSTANT),
    Family("geom", "solimp", _units("1", "1", "m", "1"), _row("geom_solimp", 5),
           "contact: impedance d0, dwidth, width [m], midpoint, power", width=5, scale=lambda model, i: 0.01),
    Family("site", "pos", _units("m"), _row("site_pos", 3), "position in the body frame, and of the sensors there", width=3,
           low=-INF, scale=_length),
    Family("site", "rot", _units("rad"), _row("site_turn", 3), "turn from the model's orientation, own axes", width=3,
           low=-INF),
    Family("tendon", "stiffness", _units("N/m"), _row("tendon_stiffness"), "spring stiffness", scale=_tendon_scale),
    Family("tendon", "damping", _units("N*s/m"), _row("tendon_damping"), "viscous friction", scale=_tendon_scale),
    Family("tendon", "frictionloss", _units("N"), _row("tendon_frictionloss"), "Coulomb friction", scale=_tendon_scale),
    Family("tendon", "armature", _units("kg"), _row("tendon_armature"), "inertia moved by the tendon's velocity",
           scale=_tendon_scale),
    Family("actuator", "gear", _units("1"), _row("actuator_gear", 6), "transmission ratio", width=_joint_gear, low=-INF,
           scale=lambda model, i: float(np.abs(model.actuator_gear[i]).max()) or 1.0),
    Family("actuator", "gain", _units("force/ctrl"), _row("actuator_gainprm", 10), "force per unit of control",
           low=-INF, scale=_gain_scale,
           refuse=_FIXED_GAIN),
    Family("actuator", "kp_per_ctrl", _units("force/ctrl"), _feedback(1),
           "position gain (force per length or angle) that the control multiplies",
           scale=lambda model, i: _feedback_scale(model, i, 1),
           refuse=_AFFINE_GAIN),
    Family("actuator", "kv_per_ctrl", _units("force/ctrl"), _feedback(2),
           "velocity gain (force per speed) that the control multiplies",
           scale=lambda model, i: _feedback_scale(model, i, 2),
           refuse=_AFFINE_GAIN),
    Family("tendon", "actuatorfrcrange", _units("force"),
           lambda model, i, k: (Slot("tendon_actfrcrange", (2 * i + 1,)), Slot("tendon_actfrcrange", (2 * i,), -1.0)),
           "largest force of all its actuators together, either way",
           scale=lambda model, i: float(model.tendon_actfrcrange[i, 1]) or 1.0,
           refuse=_LIMITED),
    Family("actuator", "kp", _units("N*m/rad or N/m"), _servo, "position gain of a position servo", scale=_gain_scale,
           refuse=lambda model, i: _FIXED_GAIN(model, i) or _POSITION_SERVO(model, i)),
    Family("actuator", "kv", _units("N*m*s/rad or N*s/m"), _affine_servo, "velocity gain of a position or velocity servo",
           scale=lambda model, i: 0.1 * _gain_scale(model, i),
           refuse=_AFFINE_BIAS),
    Family("actuator", "offset", _units("N*m or N"), _row("actuator_biasprm", 10), "constant force of the actuator",
           low=-INF, scale=lambda model, i: 0.1,
           refuse=_AFFINE_BIAS),
    Family("actuator", "timeconst", _units("s"), _row("actuator_dynprm", 10), "time constant of the activation filter",
           scale=lambda model, i: 0.01,
           refuse=_FILTERED),
    Family("actuator", "delay", _units("s"), _row("actuator_delay"), "age of the control that is applied", reach=0.1,
           scale=lambda model, i: 0.005),
    Family("sensor", "bias", lambda model, i, k: sensor_unit(model, i), _channel("sensor_bias"),
           "added to what the sensor reads", width=_sensor_width, low=-INF, scale=lambda model, i: 0.1),
    Family("sensor", "scale", _units("1"), _channel("sensor_scale"), "factor on what the sensor reads",
           width=_sensor_width, low=-INF, scale=lambda model, i: 0.1),
    Family("sensor", "delay", _units("s"), _row("sensor_delay"), "age of what the sensor reports", reach=0.1,
           scale=lambda model, i: 0.005),
):  # fmt: skip
    register(_family)

# The field for all ten inertial numbers of a body together, in log-Cholesky coordinates.
PSEUDO_INERTIA = Family(
    "body",
    "inertia",
    _units("see components"),
    _nowhere,
    "mass, centre of mass and full inertia",
    low=-INF,
    refuse=_MASSIVE,
)

SYNONYMS = {("body", "com"): ("body", "ipos")}

REFUSED = {
    ("option", "timestep"): "the time step is a setting of the integrator, not a property of the robot",
    (
        "option",
        "gravity",
    ): "only the ratio of gravity to mass and torque is seen in a log; free body/*/mass or actuator/*/gear",
    ("log", "initial_state"): "a start state belongs to a recording, so only `dso identify` with a log estimates it",
    (
        "sensor",
        "noise",
    ): "a noise scale is no number of the model; only `dso identify` with a log, or a training with [sensors], estimates it",
}
