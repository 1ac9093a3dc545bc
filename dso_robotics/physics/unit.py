"""Units of channels: their spellings, and the unit that a MuJoCo sensor or actuator implies."""

import re

import mujoco

_HINGE, _SLIDE = int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE)
_S = mujoco.mjtSensor

# Sensors whose unit depends only on their type.
_FIXED = {
    _S.mjSENS_TOUCH: "N",
    _S.mjSENS_ACCELEROMETER: "m/s^2",
    _S.mjSENS_VELOCIMETER: "m/s",
    _S.mjSENS_GYRO: "rad/s",
    _S.mjSENS_FORCE: "N",
    _S.mjSENS_TORQUE: "N*m",
    _S.mjSENS_RANGEFINDER: "m",
    _S.mjSENS_BALLQUAT: "1",
    _S.mjSENS_BALLANGVEL: "rad/s",
    _S.mjSENS_FRAMEPOS: "m",
    _S.mjSENS_FRAMEQUAT: "1",
    _S.mjSENS_FRAMEXAXIS: "1",
    _S.mjSENS_FRAMEYAXIS: "1",
    _S.mjSENS_FRAMEZAXIS: "1",
    _S.mjSENS_FRAMELINVEL: "m/s",
    _S.mjSENS_FRAMEANGVEL: "rad/s",
    _S.mjSENS_FRAMELINACC: "m/s^2",
    _S.mjSENS_FRAMEANGACC: "rad/s^2",
    _S.mjSENS_SUBTREECOM: "m",
    _S.mjSENS_SUBTREELINVEL: "m/s",
    _S.mjSENS_SUBTREEANGMOM: "kg*m^2/s",
    _S.mjSENS_GEOMDIST: "m",
    _S.mjSENS_GEOMNORMAL: "1",
    _S.mjSENS_GEOMFROMTO: "m",
    _S.mjSENS_CLOCK: "s",
    _S.mjSENS_E_POTENTIAL: "J",
    _S.mjSENS_E_KINETIC: "J",
}
# Sensors on a joint: the unit on a hinge and on a slide.
_JOINT = {
    _S.mjSENS_JOINTPOS: ("rad", "m"),
    _S.mjSENS_JOINTVEL: ("rad/s", "m/s"),
    _S.mjSENS_JOINTACTFRC: ("N*m", "N"),
    _S.mjSENS_JOINTLIMITPOS: ("rad", "m"),
    _S.mjSENS_JOINTLIMITVEL: ("rad/s", "m/s"),
    _S.mjSENS_JOINTLIMITFRC: ("N*m", "N"),
}
_SPELLINGS = {
    "nm": "n*m",
    "n.m": "n*m",
    "newtonmeter": "n*m",
    "newton": "n",
    "radian": "rad",
    "radians": "rad",
    "degree": "deg",
    "degrees": "deg",
    "°": "deg",
    "meter": "m",
    "metre": "m",
    "second": "s",
    "seconds": "s",
    "sec": "s",
    "ms^-1": "m/s",
    "rads^-1": "rad/s",
    "-": "1",
    "none": "1",
}


def same_unit(a: str, b: str) -> bool:
    """Whether two spellings mean the same unit: `N m`, `Nm` and `N*m`, or `m/s2` and `m/s^2`."""
    return canonical(a) == canonical(b)


def sensor_unit(model: mujoco.MjModel, sensor_id: int) -> str:
    """SI unit that the type of a sensor implies, such as `rad` for jointpos on a hinge; "" if it implies none.

    Sensors of tendons and actuators, magnetometers, user sensors and plugins imply none. Their unit depends on the
    coefficients, on the gear, or on the unit that the model's author chose for the magnetic field.
    """
    kind = mujoco.mjtSensor(int(model.sensor_type[sensor_id]))
    if kind in _JOINT:
        return _by_joint(model, int(model.sensor_objid[sensor_id]), _JOINT[kind])
    return _FIXED.get(kind, "")


def actuator_unit(model: mujoco.MjModel, actuator_id: int) -> str:
    """SI unit of an actuator's control if it is certain; "" otherwise.

    It is certain for motors with unit gain on a joint (force or torque, whatever the gear), and for position and velocity
    servos with unit gear on a joint.
    """
    transmission, dynamics, gain_type, bias_type = (
        int(getattr(model, f"actuator_{kind}type")[actuator_id]) for kind in ("trn", "dyn", "gain", "bias")
    )
    if (
        transmission not in (int(mujoco.mjtTrn.mjTRN_JOINT), int(mujoco.mjtTrn.mjTRN_JOINTINPARENT))
        or dynamics != int(mujoco.mjtDyn.mjDYN_NONE)
        or gain_type != int(mujoco.mjtGain.mjGAIN_FIXED)
    ):
        return ""
    joint = int(model.actuator_trnid[actuator_id, 0])
    gain, bias = float(model.actuator_gainprm[actuator_id, 0]), model.actuator_biasprm[actuator_id]
    if bias_type == int(mujoco.mjtBias.mjBIAS_NONE):
        return _by_joint(model, joint, ("N*m", "N")) if gain == 1 else ""
    if bias_type == int(mujoco.mjtBias.mjBIAS_AFFINE) and model.actuator_gear[actuator_id, 0] == 1 and gain != 0:
        if bias[1] == -gain:
            return _by_joint(model, joint, ("rad", "m"))
        if bias[1] == 0 and bias[2] == -gain:
            return _by_joint(model, joint, ("rad/s", "m/s"))
    return ""


def control_unit(model: mujoco.MjModel, actuator_id: int, stated: str) -> str:
    """The unit that a log's control has to be in, if it states `stated`; "" if any is right.

    A motor's gear may be the force at a control of one: then the control is a share, such as a duty cycle, in "1".
    """
    unit = actuator_unit(model, actuator_id)
    geared = abs(float(model.actuator_gear[actuator_id, 0])) != 1
    share = geared and int(model.actuator_biastype[actuator_id]) == int(mujoco.mjtBias.mjBIAS_NONE)
    return "" if share and canonical(stated) == "1" else unit


def _by_joint(model: mujoco.MjModel, joint: int, units: tuple[str, str]) -> str:
    kind = int(model.jnt_type[joint])
    return units[0] if kind == _HINGE else units[1] if kind == _SLIDE else ""


def canonical(unit: str) -> str:
    """One spelling of a unit, in lower case: `N m`, `Nm` and `N·m` become `n*m`."""
    text = unit.strip().lower().replace("·", "*").replace("²", "^2").replace("**", "^")
    text = re.sub(r"\s*([*/^])\s*", r"\1", text)  # spaces beside an operator are removed,
    text = re.sub(r"\s+", "*", text)  # other spaces are products
    text = re.sub(r"(?<=[a-z])([23])\b", r"^\1", text)  # m/s2
    return _SPELLINGS.get(text, text)
