"""The parameters of actuators: transmission, servos, limits, muscles and DC motors, by the names of MJCF.

MuJoCo keeps the numbers of an actuator in gainprm, biasprm and dynprm, and what they mean depends on the actuator. A field
that MJCF writes to two of them is one number here, which moves both.
"""

from collections.abc import Callable

import mujoco
import numpy as np

from dso_robotics.parameters.family import INF, Family, Slot, interval, needs, ranged, row, units

# NumPy integers do not compare equal to MuJoCo's enums, so the enums are turned into integers.
_GAIN, _BIAS, _DYN = mujoco.mjtGain, mujoco.mjtBias, mujoco.mjtDyn
_FIXED, _AFFINE_GAIN = int(_GAIN.mjGAIN_FIXED), int(_GAIN.mjGAIN_AFFINE)
_MUSCLE, _DCMOTOR, _PID = int(_GAIN.mjGAIN_MUSCLE), int(_GAIN.mjGAIN_DCMOTOR), int(_GAIN.mjGAIN_PID)
_SO3 = int(_GAIN.mjGAIN_SO3)
_NO_BIAS, _AFFINE, _MUSCLE_BIAS = int(_BIAS.mjBIAS_NONE), int(_BIAS.mjBIAS_AFFINE), int(_BIAS.mjBIAS_MUSCLE)
_FILTERS = (int(_DYN.mjDYN_FILTER), int(_DYN.mjDYN_FILTEREXACT))
_ON_JOINT = (int(mujoco.mjtTrn.mjTRN_JOINT), int(mujoco.mjtTrn.mjTRN_JOINTINPARENT))
_SLIDE = int(mujoco.mjtJoint.mjJNT_SLIDE)
_MUSCLE_DYN, _DCMOTOR_DYN = int(_DYN.mjDYN_MUSCLE), int(_DYN.mjDYN_DCMOTOR)

Places = Callable[[mujoco.MjModel, int, int], tuple[Slot, ...]]


def _gain(column: int, factor: float = 1.0) -> Places:
    return lambda model, i, k: (Slot("actuator_gainprm", (10 * i + column + k,), factor),)


def _bias(column: int, factor: float = 1.0) -> Places:
    return lambda model, i, k: (Slot("actuator_biasprm", (10 * i + column + k,), factor),)


def _dyn(column: int) -> Places:
    return row("actuator_dynprm", 10, column=column)


def _columns(*places: Places) -> Places:
    """Component k is component 0 of places[k]."""
    return lambda model, i, k: places[k](model, i, 0)


def _present(field: str, column: int) -> Callable[[mujoco.MjModel, int], float]:
    """The size of a number in the model, or 1 if it is zero."""
    return lambda model, i: float(abs(getattr(model, field)[i, column])) or 1.0


def _type(model: mujoco.MjModel, i: int) -> int:
    return int(model.actuator_gaintype[i])


def _by_transmission(hinge: str, slide: str, voltage: str = "") -> Callable[[mujoco.MjModel, int, int], str]:
    """The unit on a hinge or ball, and on a slide; both where the transmission is no joint. `voltage`: that of a <dcmotor>."""

    def unit(model: mujoco.MjModel, i: int, k: int) -> str:
        if voltage and _type(model, i) == _DCMOTOR:
            return voltage
        if int(model.actuator_trntype[i]) not in _ON_JOINT:
            return f"{hinge} or {slide}"
        return slide if int(model.jnt_type[model.actuator_trnid[i, 0]]) == _SLIDE else hinge

    return unit


# Position and velocity gains.


def _is_velocity_servo(model: mujoco.MjModel, i: int) -> bool:
    """Whether the force is kv (control - velocity), as of <velocity>."""
    gain, bias = model.actuator_gainprm[i], model.actuator_biasprm[i]
    return bool(_type(model, i) == _FIXED and bias[1] == 0 and gain[0] == -bias[2] and gain[0] != 0)


def _kp(model: mujoco.MjModel, i: int, k: int) -> tuple[Slot, ...]:
    gain, bias = model.actuator_gainprm[i], model.actuator_biasprm[i]
    if _type(model, i) == _DCMOTOR:
        return _gain(4)(model, i, 0)
    if _type(model, i) == _SO3:
        return _gain(0)(model, i, 0)
    if _type(model, i) == _PID or gain[0] == 0:
        return _bias(1, -1.0)(model, i, 0)
    # The control may have another unit than the position, such as ticks: gainprm[0] is kp times their ratio.
    return (*_bias(1, -1.0)(model, i, 0), *_gain(0, float(-gain[0] / bias[1]))(model, i, 0))


def _no_kp(model: mujoco.MjModel, i: int) -> str:
    if _type(model, i) == _DCMOTOR:
        return _CONTROLLED(model, i)
    if _type(model, i) == _SO3:
        return ""
    if _type(model, i) not in (_FIXED, _PID):
        return "its gain is not a fixed number"
    if model.actuator_biastype[i] != _AFFINE or model.actuator_biasprm[i, 1] == 0:
        return "it is not a position servo (its biasprm[1] is zero); free its 'gain' instead"
    return ""


def _kv(model: mujoco.MjModel, i: int, k: int) -> tuple[Slot, ...]:
    if _type(model, i) == _AFFINE_GAIN and model.actuator_biastype[i] == _NO_BIAS:
        return _gain(2, -1.0)(model, i, 0)  # <damper>: the control multiplies it
    if _is_velocity_servo(model, i):
        return (*_gain(0)(model, i, 0), *_bias(2, -1.0)(model, i, 0))
    return _bias(2, -1.0)(model, i, 0)


def _no_kv(model: mujoco.MjModel, i: int) -> str:
    damper = _type(model, i) == _AFFINE_GAIN and model.actuator_biastype[i] == _NO_BIAS
    return "" if damper or _type(model, i) == _SO3 else _AFFINE_BIAS(model, i)


def _kv_scale(model: mujoco.MjModel, i: int) -> float:
    return 0.1 * (abs(float(model.actuator_gainprm[i, 0])) or 1.0)


_FIXED_GAIN = needs(lambda m, i: m.actuator_gaintype[i] == _FIXED, "its gain is not a fixed number")
_FEEDBACK = needs(
    lambda m, i: m.actuator_gaintype[i] == _AFFINE_GAIN,
    'its gaintype is not "affine", so MuJoCo would ignore the value; write gaintype="affine" in the model',
)
_AFFINE_BIAS = needs(
    lambda m, i: m.actuator_biastype[i] == _AFFINE,
    'its biastype is not "affine", so MuJoCo would ignore the value; write biastype="affine" in the model',
)
_RATED = needs(lambda m, i: m.actuator_dynprm[i, 1] > 0, "its rate is not limited; write slewmax in the model")
_IS_PID = needs(lambda m, i: m.actuator_gaintype[i] == _PID, "it is not a <pid> actuator")

# Transmission and limits.


def _gears(model: mujoco.MjModel, i: int) -> int:
    """Joints and tendons of one number use the first entry of gear alone."""
    kind = int(model.actuator_trntype[i])
    several = kind in (int(mujoco.mjtTrn.mjTRN_SITE), int(mujoco.mjtTrn.mjTRN_BODY))
    if kind in (int(mujoco.mjtTrn.mjTRN_JOINT), int(mujoco.mjtTrn.mjTRN_JOINTINPARENT)):
        several = int(model.jnt_type[model.actuator_trnid[i, 0]]) <= 1
    return 6 if several else 1


def _limit(flag: str, attribute: str, what: str) -> Callable[[mujoco.MjModel, int], str]:
    reason = f'{what} is not limited; write {attribute}="-LIMIT LIMIT" in the model, with a start value'
    return needs(lambda m, i: getattr(m, flag)[i], reason)


# Filters and muscles.


def _time_constants(model: mujoco.MjModel, i: int) -> int:
    return 2 if model.actuator_dyntype[i] == _MUSCLE_DYN else 1


def _no_time_constant(model: mujoco.MjModel, i: int) -> str:
    kind = int(model.actuator_dyntype[i])
    if kind in (*_FILTERS, _MUSCLE_DYN) or (kind == _DCMOTOR_DYN and model.actuator_dynprm[i, 0] > 0):
        return ""
    if kind == _DCMOTOR_DYN:
        return "its current has no dynamics; write inductance in the model, with a start value"
    return 'its dyntype is not "filter", "filterexact" or "muscle", so it has no time constant'


def _muscle(column: int) -> Places:
    """A number that <muscle> writes to gainprm and to biasprm."""

    def places(model: mujoco.MjModel, i: int, k: int) -> tuple[Slot, ...]:
        both = _gain(column)(model, i, k)
        return (*both, *_bias(column)(model, i, k)) if model.actuator_biastype[i] == _MUSCLE_BIAS else both

    return places


_IS_MUSCLE = needs(lambda m, i: m.actuator_gaintype[i] == _MUSCLE, "it is not a muscle")


def _no_force(model: mujoco.MjModel, i: int) -> str:
    computed = model.actuator_gainprm[i, 2] < 0
    return _IS_MUSCLE(model, i) or ("its force is computed from its scale; free 'scale' instead" if computed else "")


def _no_scale(model: mujoco.MjModel, i: int) -> str:
    given = model.actuator_gainprm[i, 2] >= 0
    return _IS_MUSCLE(model, i) or (
        "its force is given, so MuJoCo ignores scale; free 'force' instead" if given else ""
    )


def _muscle_number(name: str, column: int, unit: str, text: str, **more) -> Family:
    refuse = more.pop("refuse", _IS_MUSCLE)
    scale = _present("actuator_gainprm", column)
    return Family("actuator", name, units(unit), _muscle(column), text, refuse=refuse, scale=scale, **more)


# DC motors.

_IS_MOTOR = needs(lambda m, i: m.actuator_gaintype[i] == _DCMOTOR, "it is not a <dcmotor>")
_CONTROLLED = needs(
    lambda m, i: m.actuator_gaintype[i] == _DCMOTOR and m.actuator_gainprm[i, 4:7].any(),
    "it has no position or velocity controller; write controller and input in its <dcmotor>",
)


def _motor(holds: Callable[[mujoco.MjModel, int], object], attribute: str) -> Callable[[mujoco.MjModel, int], str]:
    """MuJoCo gives a motor the states of an effect when it compiles, so the model must have the effect."""
    own = needs(holds, f"its model lacks that effect; write {attribute} in its <dcmotor>, with start values")
    return lambda model, i: _IS_MOTOR(model, i) or own(model, i)


_COGS = _motor(lambda m, i: m.actuator_biasprm[i, :2].any(), "cogging")
_WARMS = _motor(lambda m, i: m.actuator_dynprm[i, 2] > 0, "thermal")
_BRISTLES = _motor(lambda m, i: m.actuator_dynprm[i, 5] > 0, "lugre")
_INDUCTS = _motor(lambda m, i: m.actuator_dynprm[i, 0] > 0, "inductance")


def _motor_number(name: str, place: Places, unit: str, text: str, field: str, column: int, **more) -> Family:
    refuse = more.pop("refuse", _IS_MOTOR)
    return Family("actuator", name, units(unit), place, text, refuse=refuse, scale=_present(field, column), **more)


_DC_MOTOR = (
    _motor_number("resistance", _gain(0), "ohm", "resistance of the winding; the electrical time constant stays",
                  "actuator_gainprm", 0),
    _motor_number("motorconst", _gain(1), "N*m/A or V*s/rad", "torque per current, and voltage per speed",
                  "actuator_gainprm", 1),
    _motor_number("inductance", row("motor_inductance"), "H", "inductance of the winding", "actuator_dynprm", 0,
                  refuse=_INDUCTS),
    Family("actuator", "cogging", units("N*m", "1/turn", "rad"), _bias(0), "cogging torque: amplitude, periods, phase",
           width=3, low=lambda m, i, k: -INF if k == 2 else 0.0,
           refuse=_COGS),
    Family("actuator", "lugre", units("N*m/rad", "N*m*s/rad", "N*m", "N*m", "rad/s"),
           _columns(_dyn(5), _dyn(6), _bias(3), _bias(4), _bias(5)),
           "LuGre friction: bristle stiffness, bristle damping, Coulomb, static, Stribeck speed", width=5,
           refuse=_BRISTLES),
    _motor_number("thermal_resistance", _dyn(2), "K/W", "thermal resistance to the surroundings", "actuator_dynprm", 2,
                  refuse=_WARMS),
    _motor_number("thermal_capacity", _dyn(3), "J/K", "heat capacity", "actuator_dynprm", 3, refuse=_WARMS),
    _motor_number("thermal_coefficient", _gain(2), "1/K", "relative growth of the resistance with temperature",
                  "actuator_gainprm", 2, refuse=_WARMS),
    _motor_number("thermal_ambient", _dyn(4), "degC", "temperature of the surroundings", "actuator_dynprm", 4,
                  refuse=_WARMS, low=-INF),
)  # fmt: skip

ACTUATORS = (
    Family("actuator", "gear", units("1"), row("actuator_gear", 6), "transmission ratio", width=_gears, low=-INF,
           scale=lambda model, i: float(np.abs(model.actuator_gear[i]).max()) or 1.0),
    Family("actuator", "gain", units("force/ctrl"), _gain(0), "force per unit of control", low=-INF,
           scale=_present("actuator_gainprm", 0),
           refuse=_FIXED_GAIN),
    Family("actuator", "kp_per_ctrl", units("force/ctrl"), _gain(1, -1.0),
           "position gain (force per length or angle) that the control multiplies",
           scale=_present("actuator_gainprm", 1),
           refuse=_FEEDBACK),
    Family("actuator", "kv_per_ctrl", units("force/ctrl"), _gain(2, -1.0),
           "velocity gain (force per speed) that the control multiplies",
           scale=_present("actuator_gainprm", 2),
           refuse=_FEEDBACK),
    Family("actuator", "kp", _by_transmission("N*m/rad", "N/m", "V/rad"), _kp, "position gain of a servo; the target stays",
           scale=lambda model, i: float(abs(model.actuator_biasprm[i, 1])) or 1.0,
           refuse=_no_kp),
    Family("actuator", "kv", _by_transmission("N*m*s/rad", "N*s/m"), _kv, "velocity gain of a servo or damper", scale=_kv_scale,
           refuse=_no_kv),
    Family("actuator", "ki", _by_transmission("N*m/(rad*s)", "N/(m*s)", "V/(rad*s)"),
           lambda m, i, k: _gain(5 if _type(m, i) == _DCMOTOR else 0)(m, i, 0), "integral gain of a controller",
           refuse=lambda m, i: _CONTROLLED(m, i) if _type(m, i) == _DCMOTOR else _IS_PID(m, i)),
    Family("actuator", "kd", units("V*s/rad"), _gain(6), "velocity gain of a <dcmotor>'s controller",
           refuse=_CONTROLLED),
    Family("actuator", "slewmax", units("ctrl/s"), _dyn(1), "largest rate of the target of a <pid>",
           scale=_present("actuator_dynprm", 1),
           refuse=lambda m, i: _IS_PID(m, i) or _RATED(m, i)),
    Family("actuator", "offset", _by_transmission("N*m", "N"), _bias(0), "constant force of the actuator", low=-INF,
           scale=lambda model, i: 0.1,
           refuse=_AFFINE_BIAS),
    Family("actuator", "timeconst", units("s"), _dyn(0),
           "time constant of the activation: of a filter, of a motor's current, or of a muscle going on and off",
           width=_time_constants, scale=lambda model, i: 0.01,
           refuse=_no_time_constant),
    Family("actuator", "tausmooth", units("1"), _dyn(2), "width of the change between a muscle's time constants",
           scale=lambda model, i: 0.1,
           refuse=needs(lambda m, i: m.actuator_dyntype[i] == _MUSCLE_DYN, "it is not a muscle")),
    _muscle_number("force", 2, "N", "largest active force of a muscle at rest", refuse=_no_force),
    _muscle_number("scale", 3, "N*kg or N*kg*m^2", "force of a muscle times the inertia that it moves", refuse=_no_scale),
    Family("actuator", "range", units("1"), _muscle(0),
           "a muscle's shortest and longest operating length, in its resting lengths", width=2,
           scale=lambda model, i: 0.1,
           refuse=_IS_MUSCLE),
    Family("actuator", "lengthrange", units("m"), interval("actuator_lengthrange"),
           "shortest and longest length of the transmission of a muscle", width=2, low=-INF,
           scale=lambda model, i: float(np.abs(model.actuator_lengthrange[i]).max()) or 1.0,
           refuse=_IS_MUSCLE, mjcf=("actuator_lengthrange", "lengthrange")),
    _muscle_number("lmin", 4, "1", "length at which a muscle's active force begins, in resting lengths"),
    _muscle_number("lmax", 5, "1", "length at which a muscle's active force ends, in resting lengths"),
    _muscle_number("vmax", 6, "1/s", "largest speed of shortening of a muscle, in resting lengths"),
    _muscle_number("fpmax", 7, "1", "passive force of a muscle at lmax, in its force"),
    _muscle_number("fvmax", 8, "1", "force of a muscle that lengthens fast, in its force"),
    *_DC_MOTOR,
    ranged("actuator", "forcerange", "actuator_forcerange", _by_transmission("N*m", "N"),
           "least and largest force of the actuator",
           refuse=_limit("actuator_forcelimited", "forcerange", "its force"), mjcf=("actuator_forcerange", "forcerange")),
    ranged("actuator", "ctrlrange", "actuator_ctrlrange", units("ctrl"), "range to which the control is clamped",
           refuse=_limit("actuator_ctrllimited", "ctrlrange", "its control")),
    ranged("actuator", "actrange", "actuator_actrange", units("act"), "range to which the activation is clamped",
           refuse=_limit("actuator_actlimited", "actrange", "its activation"), mjcf=("actuator_actrange", "actrange")),
    Family("actuator", "delay", units("s"), row("actuator_delay"), "age of the control that is applied", reach=0.1,
           scale=lambda model, i: 0.005),
)  # fmt: skip
