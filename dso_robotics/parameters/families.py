"""The parameters that can be freed: one `Family` for each KIND/NAME/FIELD of MJCF, registered here.

Those of actuators and of contacts are in files of their own. To add a parameter path, call `register` once, here or in any
file that is imported before a study is read. No other code needs to change: paths, bounds and priors, both engines and the
written model.xml use the family.
"""

from collections.abc import Callable

import mujoco
import numpy as np

from dso_robotics.parameters.actuator_families import ACTUATORS
from dso_robotics.parameters.contact_families import CONTACTS
from dso_robotics.parameters.family import INF, Family, Slot, needs, ranged, register, row, units
from dso_robotics.physics.unit import sensor_unit

# NumPy integers do not compare equal to MuJoCo's enums, so the enums are turned into integers.
_SLIDE = int(mujoco.mjtJoint.mjJNT_SLIDE)


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


def _reflected_inertia(model: mujoco.MjModel, joint: int) -> float:
    """Inertia seen by the joint at qpos0 [kg m^2 or kg]: the natural unit of its armature, damping and stiffness."""
    return float(np.mean(model.dof_M0[list(_dofs(model, joint))]))


def _joint_scale(factor: float) -> Callable[[mujoco.MjModel, int], float]:
    return lambda model, i: factor * _reflected_inertia(model, i)


def _body_size(model: mujoco.MjModel, body: int) -> float:
    """Radius of gyration [m]."""
    return float(np.sqrt(max(model.body_inertia[body].max(), 1e-12) / max(model.body_mass[body], 1e-12)))


def _channel(field: str) -> Callable[[mujoco.MjModel, int, int], tuple[Slot, ...]]:
    return lambda model, i, k: (Slot(field, (int(model.sensor_adr[i]) + k,)),)


def _sensor_width(model: mujoco.MjModel, i: int) -> int:
    return int(model.sensor_dim[i])


def _nowhere(model: mujoco.MjModel, i: int, k: int) -> tuple[Slot, ...]:
    return ()


def _length(model: mujoco.MjModel, i: int) -> float:
    return 0.01 * float(model.stat.extent)


def _tendon_scale(model: mujoco.MjModel, i: int) -> float:
    return 1.0 / max(float(model.tendon_invweight0[i]), 1e-6)


_ONE_WAY = needs(lambda m, i: m.jnt_type[i] > 1, "only hinge and slide joints are supported for this field")
_TENDON_LIMITED, _JOINT_LIMITED = (
    needs(
        lambda m, i, flag=flag: getattr(m, flag)[i],
        'the force of its actuators is not limited; write actuatorfrcrange="-LIMIT LIMIT" in the model, with a start value',
    )
    for flag in ("tendon_actfrclimited", "jnt_actfrclimited")
)
_STOPPED = needs(lambda m, i: m.jnt_limited[i], 'the joint has no limits; write range="LOW HIGH" in the model')
_MASSIVE = needs(lambda m, i: m.body_mass[i] > 0, "the body has no mass, so it is fixed to its parent or static")


def _no_pose(model: mujoco.MjModel, body: int) -> str:
    if body == 0:
        return "the world does not move; free the body/NAME/pos of what is fixed to it"
    free = [j for j in range(model.njnt) if model.jnt_bodyid[j] == body and model.jnt_type[j] == 0]
    if free:
        return "it has a free joint, so its pose is a state of each recording"
    return "it is a mocap body, so its pose is an input" if model.body_mocapid[body] >= 0 else ""


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
    Family("joint", "stiffness", _per_joint("N*m/rad", "N/m"), row("jnt_stiffness"), "spring stiffness",
           scale=_joint_scale(3.0),
           refuse=_ONE_WAY),
    Family("joint", "springref", _per_joint("rad", "m"),
           lambda model, i, k: (Slot("qpos_spring", (int(model.jnt_qposadr[i]),)),), "spring rest position",
           low=-INF, scale=lambda model, i: 0.1,
           refuse=_ONE_WAY),
    ranged("joint", "range", "jnt_range", _per_joint("rad", "m"), "least and largest position of the joint",
           refuse=lambda model, i: _ONE_WAY(model, i) or _STOPPED(model, i)),
    ranged("joint", "actuatorfrcrange", "jnt_actfrcrange", _per_joint("N*m", "N"),
           "least and largest force of all its actuators together",
           refuse=lambda model, i: _ONE_WAY(model, i) or _JOINT_LIMITED(model, i),
           mjcf=("jnt_actfrcrange", "actuatorfrcrange")),
    Family("body", "mass", units("kg"), row("body_mass"), "mass; centre of mass and inertia stay",
           scale=lambda model, i: float(model.body_mass[i]),
           refuse=_MASSIVE),
    Family("body", "ipos", units("m"), row("body_ipos", 3), "centre of mass in the body frame", width=3, low=-INF,
           scale=_body_size,
           refuse=_MASSIVE),
    Family("body", "diaginertia", units("kg*m^2"), row("body_inertia", 3), "principal moments of inertia", width=3,
           scale=lambda model, i: float(model.body_inertia[i].max()),
           refuse=_MASSIVE),
    Family("body", "pos", units("m"), row("body_pos", 3), "position of the body frame in its parent", width=3, low=-INF,
           scale=_length,
           refuse=_no_pose),
    Family("body", "rot", units("rad"), row("body_turn", 3), "turn from the model's orientation, own axes", width=3,
           low=-INF,
           refuse=_no_pose),
    Family("body", "gravcomp", units("1"), row("body_gravcomp"), "share of the weight that is carried", low=-INF,
           scale=lambda model, i: 0.1,
           refuse=_MASSIVE),
    *CONTACTS,
    Family("site", "pos", units("m"), row("site_pos", 3), "position in the body frame, and of the sensors there", width=3,
           low=-INF, scale=_length),
    Family("site", "rot", units("rad"), row("site_turn", 3), "turn from the model's orientation, own axes", width=3,
           low=-INF),
    Family("tendon", "stiffness", units("N/m"), row("tendon_stiffness"), "spring stiffness", scale=_tendon_scale),
    Family("tendon", "damping", units("N*s/m"), row("tendon_damping"), "viscous friction", scale=_tendon_scale),
    Family("tendon", "frictionloss", units("N"), row("tendon_frictionloss"), "Coulomb friction", scale=_tendon_scale),
    Family("tendon", "armature", units("kg"), row("tendon_armature"), "inertia moved by the tendon's velocity",
           scale=_tendon_scale),
    ranged("tendon", "actuatorfrcrange", "tendon_actfrcrange", units("force"),
           "largest force of all its actuators together, either way",
           refuse=_TENDON_LIMITED),
    *ACTUATORS,
    Family("sensor", "bias", lambda model, i, k: sensor_unit(model, i), _channel("sensor_bias"),
           "added to what the sensor reads", width=_sensor_width, low=-INF, scale=lambda model, i: 0.1),
    Family("sensor", "scale", units("1"), _channel("sensor_scale"), "factor on what the sensor reads",
           width=_sensor_width, low=-INF, scale=lambda model, i: 0.1),
    Family("sensor", "delay", units("s"), row("sensor_delay"), "age of what the sensor reports", reach=0.1,
           scale=lambda model, i: 0.005),
):  # fmt: skip
    register(_family)

# The field for all ten inertial numbers of a body together, in log-Cholesky coordinates.
PSEUDO_INERTIA = Family(
    "body",
    "inertia",
    units("see components"),
    _nowhere,
    "mass, centre of mass and full inertia",
    low=-INF,
    refuse=_MASSIVE,
)

SYNONYMS = {("body", "com"): ("body", "ipos")}

REFUSED = {
    ("option", "timestep"): "the time step is a setting of the integrator, not a property of the robot",
    ("log", "initial_state"): "a start state belongs to a recording, so only `dso identify` with a log estimates it",
    (
        "sensor",
        "noise",
    ): "a noise scale is no number of the model; only `dso identify` with a log, or a training with [sensors], estimates it",
}
