"""Published parameters of the real mechanisms, in the structure that their authors fitted.

Values are the authors' (sources and licences: datasets/registry.toml). A friction law that MuJoCo does not have is
simulated by a law that the C engine calls at every step.
"""

import dataclasses
from pathlib import Path

import mujoco
import numpy as np

from dso_robotics.physics.friction import Law, Moment

MODELS = Path(__file__).parent.parent / "models"


@dataclasses.dataclass(frozen=True, eq=False)
class Published:
    """A set of parameters: its name, the model with them, the published numbers, its friction law if not MuJoCo's."""

    name: str
    model: mujoco.MjModel
    parameters: dict[str, float]
    law: Law | None = None


def spec(name: str) -> mujoco.MjSpec:
    return mujoco.MjSpec.from_file(str(MODELS / f"{name}.xml"))


def arctangent(*coulomb: float) -> Law:
    """Dry friction of the authors of the DFKI pendulums: coulomb * atan(100 v) [N m]."""

    def law(at: Moment) -> tuple[None, np.ndarray]:
        return None, -np.array(coulomb) * np.arctan(100 * at.qvel)

    return law


def double_pendulum() -> list[Published]:
    """Parameter sets of design A.0; inertia about the joint, r the distance of the centre of mass."""
    sets = {
        "model_2.0": {"m1": 0.5593806151425046, "r1": 0.3, "I1": 0.053470810264216295, "b1": 0.001, "cf1": 0.093}
        | {"m2": 0.6043459469186889, "r2": 0.18377686083653508, "I2": 0.02392374528789766, "b2": 0.001, "cf2": 0.078}
        | {"Ir": 7.659297952841183e-05, "gr": 6.0},
    }
    found = []
    for name, p in sets.items():
        s = spec("two_joint_arm")
        for k, (body, joint) in enumerate((("upper", "shoulder"), ("lower", "elbow")), 1):
            b, j = s.body(body), s.joint(joint)
            about_centre = p[f"I{k}"] - p[f"m{k}"] * p[f"r{k}"] ** 2
            b.mass, b.ipos, b.inertia = p[f"m{k}"], [0, 0, -p[f"r{k}"]], [about_centre] * 3
            j.damping[0], j.frictionloss, j.armature = p[f"b{k}"], 0.0, p["gr"] ** 2 * p["Ir"]
        found.append(Published(name, s.compile(), p, arctangent(p["cf1"], p["cf2"])))
    return found


def simple_pendulum() -> list[Published]:
    """The authors' identification, from the run pd_system_identification, and the values assumed by their energy controller."""
    p = {"J": 0.06259, "m*cx": 0.1022, "Fv": 0.04707, "Fc": 0.1839, "offset": -0.07586}
    s = spec("simple_pendulum")
    body, joint = s.body("rod"), s.joint("pivot")
    distance = 0.45
    body.mass, body.ipos = p["m*cx"] / distance, [0, 0, -distance]
    body.inertia = [p["J"] - p["m*cx"] * distance] * 3
    joint.damping[0], joint.frictionloss, joint.armature = p["Fv"], 0.0, 0.0
    s.actuator("tau").biasprm[0] = -p["offset"]
    identified = Published("system identification", s.compile(), p, arctangent(p["Fc"]))
    p = {"mass": 0.6755, "length": 0.5, "damping": 0.35}  # a point mass
    s = spec("simple_pendulum")
    body, joint = s.body("rod"), s.joint("pivot")
    body.mass, body.ipos, body.inertia = p["mass"], [0, 0, -p["length"]], [1e-9] * 3
    joint.damping[0], joint.frictionloss, joint.armature = p["damping"], 0.0, 0.0
    return [identified, Published("energy controller's set", s.compile(), p)]


def single_arm() -> list[Published]:
    """Viscous friction; the model file's own numbers, in full precision."""
    p = {"a1": 0.147754901, "m1": 0.147584572, "I1": 0.000109118505, "k1": 0.000223940125, "g": 9.81001310}
    s = spec("multiarm_single")
    s.body("arm").mass, s.body("arm").ipos, s.body("arm").inertia = p["m1"], [0, 0, -p["a1"]], [p["I1"]] * 3
    s.joint("pivot").damping[0], s.option.gravity = p["k1"], [0, 0, -p["g"]]
    return [Published("estimated parameters", s.compile(), p)]


def double_arm() -> list[Published]:
    """Viscous friction at both joints."""
    p = {"m1": 0.0938439748, "m2": 0.13759597, "a1": 0.108565215, "a2": 0.116779018, "L1": 0.172719204}
    p |= {"I1": 0.00043752943, "I2": 0.00126882939, "k1": 0.000237142783, "k2": 1.00000019e-05, "g": 9.80858023}
    s = spec("multiarm_double")
    for k, (body, joint) in enumerate((("upper", "pivot"), ("lower", "elbow")), 1):
        b = s.body(body)
        b.mass, b.ipos, b.inertia = p[f"m{k}"], [0, 0, -p[f"a{k}"]], [p[f"I{k}"]] * 3
        s.joint(joint).damping[0] = p[f"k{k}"]
    s.body("lower").pos, s.option.gravity = [0, 0, -p["L1"]], [0, 0, -p["g"]]
    return [Published("estimated parameters", s.compile(), p)]


def position_servo() -> list[Published]:
    """Friction models M1 (fitted to these very runs) and M6 (the next identification, of later recordings)."""
    m1 = {"kt": 0.32321138819018436, "R": 4.7636501514851926, "armature": 0.001643216859746982}
    m1 |= {"q_offset": 0.01795252374733891, "friction_base": 0.0069659724474934286}
    m1 |= {"friction_viscous": 0.010494765451601431}
    m6 = {"kt": 0.3249836557457353, "R": 2.6489545363154137, "armature": 0.001957458468996373}
    m6 |= {"q_offset": 0.013590191652650227, "friction_base": 0.00599079528457656}
    m6 |= {"friction_stribeck": 0.0015824044832487478, "load_friction_motor": 0.4288356721156603}
    m6 |= {"load_friction_external": 0.0021359230598585605}
    m6 |= {"load_friction_motor_stribeck": 0.0005849143878108778}
    m6 |= {"load_friction_external_stribeck": 0.18929056020775098}
    m6 |= {"load_friction_motor_quad": 0.006606117431414187, "load_friction_external_quad": 0.0011622643935819302}
    m6 |= {"dtheta_stribeck": 2.578809654969247, "alpha": 2.921757808544202, "friction_viscous": 0.008135615341970309}
    return [
        Published("M1 (af22604, fitted to all 16 runs)", _servo(m1), m1),
        Published("M6 (2f67dc6, fitted to later runs)", _servo(m6), m6, _model_6(m6)),
    ]


def _servo(p: dict[str, float]) -> mujoco.MjModel:
    s = spec("xl330_servo")
    volts, length = 7.4, 0.1
    stall, back_emf = volts * p["kt"] / p["R"], p["kt"] ** 2 / p["R"]
    joint, body = s.joint("horn"), s.body("arm")
    joint.damping[0], joint.frictionloss, joint.armature = p["friction_viscous"], p["friction_base"], p["armature"]
    body.ipos = [length * np.sin(p["q_offset"]), 0, -length * np.cos(p["q_offset"])]
    s.actuator("target").gainprm[0], s.actuator("feedback").gainprm[1] = stall, -stall
    s.actuator("powered").gainprm[2] = -back_emf
    s.tendon("drive").actfrcrange = [-stall, stall]
    return s.compile()


def _model_6(p: dict[str, float]) -> Law:
    """Load-dependent, directional, quadratic friction with a part that decreases with speed (arXiv 2410.08650)."""

    def law(at: Moment) -> tuple[np.ndarray, None]:
        gain, speed = at.field("actuator_gainprm"), at.qvel[:, 0]
        duty = np.clip(at.ctrl[:, 0] - at.ctrl[:, 1] * at.qpos[:, 0], -1, 1)
        motor = gain[:, 0, 0] * duty + gain[:, 2, 2] * speed * at.ctrl[:, 2]
        load = -at.bias[:, 0]
        still = np.exp(-((np.abs(speed) / p["dtheta_stribeck"]) ** p["alpha"]))
        moving = np.abs(load * p["load_friction_external"] - motor * p["load_friction_motor"])
        resting = np.abs(load * p["load_friction_external_stribeck"] - motor * p["load_friction_motor_stribeck"])
        quadratic = np.where(
            np.abs(load) < np.abs(motor),
            p["load_friction_external_quad"] * load**2,
            p["load_friction_motor_quad"] * motor**2,
        ) * (np.sign(load) != np.sign(motor))
        dry = p["friction_base"] + moving + still * (p["friction_stribeck"] + resting + quadratic)
        return dry[:, None], None

    return law


PUBLISHED = {
    "dfki_double_pendulum_A0": double_pendulum,
    "dfki_simple_pendulum": simple_pendulum,
    "multiarm_single": single_arm,
    "multiarm_double": double_arm,
    "bam_xl330": position_servo,
}
