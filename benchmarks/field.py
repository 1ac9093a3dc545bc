"""Two recordings that decide how useful identification is: a six-axis arm by its torques, and a tossed cube with contact.

Run: python benchmarks/field.py [tx40] [cube] [--poses]

Needs DSO_DATA with the folders `staubli_tx40` and `contactnets_cube`. Prints a table of each and writes results/field.json.

tx40: six links, friction, rotor inertia and offsets from the first two thirds of one motion (9 s), from starts with friction
half and one and a half times the published one. Judged on the last third: by the error of the torques, beside plain least
squares on the same samples (87 numbers without bounds and physical consistency), and by prediction over 0.2 s, beside least
squares in physically consistent numbers.
cube: friction and contact stiffness from tosses 0 to 59, from friction 0.05 and 0.8, judged by the mean error of the position
over tosses 60 to 79, which start at the first recorded state and run free. `--poses` hides the recorded states.
"""

import argparse
import json
import os
import pathlib
import re
import sys
import time

import mujoco
import numpy as np
from provenance import begun
from scipy import signal

import dso_robotics as dso
from dso_robotics.costs.torque import TorqueIdentification
from dso_robotics.data.log import Log
from dso_robotics.data.rollout import Rollout
from dso_robotics.parameters.path import parse
from dso_robotics.parameters.vector import pack
from dso_robotics.physics.export import to_mjcf
from dso_robotics.physics.model import load
from dso_robotics.robot.torque_balance import TorqueBalance
from dso_robotics.studies.torque_fit import minimum

HERE = pathlib.Path(__file__).resolve().parent
VISCOUS, DRY = (8.05, 5.53, 1.97, 1.11, 1.86, 0.65), (7.14, 8.26, 6.34, 2.48, 3.03, 0.282)
ROTOR, WRIST = (0.362, 0.362, 0.0988, 0.0313, 0.0468, 0.0105), (0.616, 1.95, 0.00964)
RATE, WINDOW = 5000, 0.2
JOINTS = range(1, 7)


def arm(folder: pathlib.Path, factor: float) -> mujoco.MjSpec:
    """The published arm with `factor` times its published friction. The coupled wrist is a tendon."""
    text = (folder / "tx40_mdh_modified.urdf").read_text()
    text = re.sub(r"<(visual|collision)>.*?</\1>", "", text, flags=re.S)
    options = '<compiler fusestatic="false" balanceinertia="true" boundinertia="1e-9" boundmass="1e-9"/>'
    text = text.replace('<robot name="staubli_tx40" >', f'<robot name="staubli_tx40"><mujoco>{options}</mujoco>')
    spec = mujoco.MjSpec.from_string(text)
    spec.option.timestep, spec.option.integrator = 0.001, mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.disableflags = int(mujoco.mjtDisableBit.mjDSBL_CONTACT) | int(mujoco.mjtDisableBit.mjDSBL_LIMIT)
    for i, viscous, dry, rotor in zip(JOINTS, VISCOUS, DRY, ROTOR, strict=True):
        joint = spec.joint(f"joint_{i}")
        joint.damping, joint.frictionloss, joint.armature = [factor * viscous, 0, 0], factor * dry, rotor
        motor = spec.add_actuator(name=f"tau{i}", target=joint.name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
        motor.biastype, motor.gainprm[0] = mujoco.mjtBias.mjBIAS_AFFINE, 1
        of = {"objtype": mujoco.mjtObj.mjOBJ_JOINT, "objname": joint.name}
        spec.add_sensor(name=f"q{i}", type=mujoco.mjtSensor.mjSENS_JOINTPOS, **of)
    viscous, dry, rotor = WRIST
    wrist = spec.add_tendon(name="wrist", damping=[factor * viscous, 0, 0], frictionloss=factor * dry, armature=rotor)
    wrist.wrap_joint("joint_5", 1.0)
    wrist.wrap_joint("joint_6", 1.0)
    return spec


def recorded(folder: pathlib.Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions, and positions and torques below 100 Hz, (T, 6) each, at the joints as the authors convert them."""
    ratio = np.array([32, 32, 45, -48, 45, 32.0])
    position, torque = np.diag(ratio), np.diag(ratio)
    position[5, 4] = torque[4, 5] = 32
    read = [np.loadtxt(folder / f"{name}.csv", delimiter=",", skiprows=1) for name in ("pos_read_data", "curr_data")]
    q = read[0] @ np.linalg.inv(position).T + [0, -np.pi / 2, np.pi / 2, 0, 0, 0]
    filtered = signal.butter(4, 2 * 100 / RATE)
    return q, signal.filtfilt(*filtered, q, axis=0), signal.filtfilt(*filtered, read[1] @ torque.T, axis=0)


def tx40(data: pathlib.Path) -> dict:
    """See the module."""
    folder = data / "staubli_tx40" / "raw"
    q, smooth, torque = recorded(folder)
    speed = np.gradient(smooth, 1 / RATE, axis=0)
    moments = np.concatenate([smooth, speed, np.gradient(speed, 1 / RATE, axis=0), torque], 1)[50:-50:40]
    third = 2 * len(q) // 3
    cuts = {"fit": slice(0, third, 5), "last": slice(third, None, 5)}
    rollouts = tuple(
        Rollout(
            name=name,
            time=np.arange(len(q))[cut] / RATE,
            ctrl=torque[cut],
            ctrl_names=tuple(f"tau{i}" for i in JOINTS),
            ctrl_units=("N*m",) * 6,
            sensordata=q[cut],
            sensor_names=tuple(f"q{i}" for i in JOINTS),
            sensor_units=("rad",) * 6,
        )
        for name, cut in cuts.items()
    )
    free = [
        f"{kind}/{name.format(i)}/{field}"
        for i in JOINTS
        for kind, name, field in (
            ("body", "link_{}", "inertia"),
            ("joint", "joint_{}", "damping"),
            ("joint", "joint_{}", "frictionloss"),
            ("joint", "joint_{}", "armature"),
            ("actuator", "tau{}", "offset"),
        )
    ] + [f"tendon/wrist/{field}" for field in ("damping", "frictionloss", "armature")]
    robot = load(arm(folder, 1.0))
    vector, judged = pack([parse(path) for path in free], robot), 2 * len(moments) // 3
    none = np.zeros((0, 6))
    balance = TorqueBalance(vector, moments, none)
    force, matrix = balance.around(vector.initial)
    spread = torque[50:-50:40].std(0)
    rows = (matrix / spread[:, None])[:judged].reshape(-1, matrix.shape[-1])
    best = np.linalg.lstsq(rows, -(force / spread)[:judged].ravel(), rcond=1e-8)[0]
    least = rms((force + matrix @ best)[judged:])
    fitted = TorqueIdentification(TorqueBalance(vector, moments[:judged], none), huber=np.inf)
    consistent = minimum(fitted, vector).z
    found = {
        "least squares": {"torque": least},
        "least squares, consistent": {
            "torque": rms(balance(consistent)[judged:]),
            "prediction": ahead(to_mjcf(robot, vector.written(consistent)), smooth, speed, torque, third),
        },
    }
    for factor in (0.5, 1.5):
        began = time.process_time()
        log = Log("", "staubli_tx40", "Apache-2.0", rollouts)
        result = dso.identify(arm(folder, factor), log, free=free, hold_out="last", fit="torque", window=WINDOW)
        seconds, z = time.process_time() - began, result.run.solution.z
        start = pack([parse(path) for path in free], load(arm(folder, factor)))
        mine = TorqueBalance(start, moments, none)
        found[f"dso, friction x {factor:g}"] = {
            "torque": rms(mine(z)[judged:]),
            "prediction": ahead(to_mjcf(load(arm(folder, factor)), start.written(z)), smooth, speed, torque, third),
            "cpu_seconds": round(seconds, 1),
            "converged": result.converged,
        }
    print("held-out torque error [N m] of joints 1 to 6")
    for name, row in found.items():
        more = f"  {row['cpu_seconds']} s of CPU, converged {row['converged']}" if "converged" in row else ""
        worst = np.max(np.divide(row["torque"], least))
        print(
            f"  {name:28}", *(f"{value:7.3f}" for value in row["torque"]), f"  at most {worst:.2f} of the first{more}"
        )
    print(f"held-out prediction over {WINDOW:g} s, mean of window rms [mrad]")
    for name, row in found.items():
        if "prediction" in row:
            print(f"  {name:28}", *(f"{1e3 * value:7.2f}" for value in row["prediction"]))
    return found


def rms(errors: np.ndarray) -> list[float]:
    """Root mean square of each column."""
    return np.sqrt((errors**2).mean(0)).tolist()


def ahead(mjcf: str, q: np.ndarray, speed: np.ndarray, torque: np.ndarray, begin: int) -> list[float]:
    """Mean over windows of each joint's root mean square error, simulated from the recorded state."""
    model, errors = mujoco.MjModel.from_xml_string(mjcf), []
    each, steps = round(model.opt.timestep * RATE), round(WINDOW / model.opt.timestep)
    for first in range(begin, len(q) - each * steps, each * steps):
        data, path = mujoco.MjData(model), []
        data.qpos[:], data.qvel[:] = q[first], speed[first]
        for step in range(steps):
            data.ctrl[:] = torque[first + each * step]
            mujoco.mj_step(model, data)
            path.append(data.qpos - q[first + each * (step + 1)])
        errors.append(rms(np.array(path)))
    return np.mean(errors, axis=0).tolist()


CUBE = """<mujoco model="cube"><option timestep="0.0017" cone="elliptic" impratio="10"/>
  <worldbody><geom name="board" type="plane" size="2 2 .1" friction="0 0.005 0.0001"/>
    <body name="cube" pos="0 0 0.2"><freejoint name="root"/>
      <inertial pos="0 0 0" mass="0.37" diaginertia="0.00081 0.00081 0.00081"/>
      <geom name="cube" type="box" size="0.0524 0.0524 0.0524"/></body></worldbody>
  <sensor><framepos name="pos" objtype="xbody" objname="cube"/><framequat name="quat" objtype="xbody" objname="cube"/></sensor>
</mujoco>"""
FRAME = 0.0068


def cube(data: pathlib.Path, *, poses: bool) -> dict:
    """See the module."""
    with np.load(data / "contactnets_cube" / "raw" / "tosses_000_079.npz", allow_pickle=False) as file:
        tosses = [file[name] for name in sorted(file.files)]
    names = tuple(f"pos[{i}]" for i in range(3)) + tuple(f"quat[{i}]" for i in range(4))
    rollouts = []
    for number, toss in enumerate(tosses):
        pose = np.c_[toss[:, 4:7], toss[:, :4]]
        state = {} if poses else {"qpos": pose, "qvel": np.c_[toss[:, 10:13], toss[:, 7:10]]}
        about = {"sensor_names": names, "sensor_units": ("m",) * 3 + ("1",) * 4}
        time_ = FRAME * np.arange(len(toss))
        rollouts.append(Rollout(name=f"toss{number:02d}", time=time_, sensordata=pose, **about, **state))
    log = Log("", "contactnets_cube", "BSD-3-Clause", tuple(rollouts))
    held, found = [f"toss{number:02d}" for number in range(60, 80)], {}
    for start in (0.05, 0.8):
        free = [f"geom/cube/friction[0]={start}@0:2", "geom/cube/solref[0]", "geom/cube/solref[1]"]
        began = time.process_time()
        result = dso.identify(mujoco.MjSpec.from_string(CUBE), log, free=free, hold_out=held, window="full")
        row = result.summary["parameters"]["geom/cube/friction[0]"]
        found[f"from {start:g}"] = {
            "friction": row["value"],
            "interval": [row["low95"], row["high95"]],
            "position_error": free_run(result.model(), tosses[60:]),
            "cpu_seconds": round(time.process_time() - began, 1),
            "converged": result.converged,
        }
        mine = found[f"from {start:g}"]
        print(
            f"cube, {'poses' if poses else 'states'}, from {start:g}: friction {row['value']:.4f} "
            f"({row['low95']:.4f} to {row['high95']:.4f}), position error {1e3 * mine['position_error']:.1f} mm, "
            f"{mine['cpu_seconds']} s of CPU, converged {mine['converged']}"
        )
    return found


def free_run(model: mujoco.MjModel, tosses: list[np.ndarray]) -> float:
    """Mean distance [m] from the recorded position, over whole tosses that start at the first recorded state."""
    errors = []
    for toss in tosses:
        data, path = mujoco.MjData(model), []
        data.qpos[:], data.qvel[:] = np.r_[toss[0, 4:7], toss[0, :4]], np.r_[toss[0, 10:13], toss[0, 7:10]]
        for row in toss[1:]:
            mujoco.mj_step(model, data, round(FRAME / model.opt.timestep))
            path.append(np.linalg.norm(data.qpos[:3] - row[4:7]))
        errors.append(np.mean(path))
    return float(np.mean(errors))


def main() -> int:
    """Run what is asked for, and keep what was found before."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", nargs="*", choices=("tx40", "cube", []), help="both by default")
    parser.add_argument("--poses", action="store_true", help="the cube without its recorded states")
    asked = parser.parse_args()
    if "DSO_DATA" not in os.environ:
        sys.exit("DSO_DATA is not set: it names the folder with staubli_tx40 and contactnets_cube.")
    data, kept = pathlib.Path(os.environ["DSO_DATA"]), HERE / "results" / "field.json"
    found = begun(kept)
    for which in asked.which or ("tx40", "cube"):
        key = which + (" poses" if asked.poses and which == "cube" else "")
        found[key] = tx40(data) if which == "tx40" else cube(data, poses=asked.poses)
        found["versions"] = {"dso": dso.__version__, "mujoco": mujoco.__version__}
        kept.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
