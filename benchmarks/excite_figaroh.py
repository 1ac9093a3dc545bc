"""One plan of figaroh 1.0.2's optimal trajectory, in its own Python environment, which benchmarks/excite.py starts.

    make bench-figaroh, then python benchmarks/excite.py --figaroh .venv-figaroh/bin/python

It does not import dso_robotics, and dso_robotics does not need it. figaroh minimises the condition number of the regressor of
its base parameters over cubic splines through waypoints at rest, by IPOPT, within the position, speed and effort limits of the
URDF. SPEC is a JSON file with "urdf", "joints", "seconds", "friction", "rotor", "minutes" and "share": of the range of
positions, that of the waypoints of the first guess, for an arm that its motors cannot hold in every position. OUT gets arrays
time (T,), qpos, qvel, qacc (T, n) and the condition number, of the best of several layouts of waypoints and random starts.
"""

import argparse
import json
import logging
import pathlib
import sys
import tempfile
import time

import numpy as np
import yaml
from figaroh.optimal.base_optimal_trajectory import BaseOptimalTrajectory, BaseTrajectoryIPOPTProblem
from figaroh.tools.robot import Robot

# Waypoints of a segment and number of segments. The first is figaroh's default of both, with the time between waypoints made
# shorter than its 2 s, so that the whole lasts as long as the other plans.
LAYOUTS = ((5, 2), (6, 1), (11, 1), (6, 2))
# Samples a second. figaroh takes 100; it looks for the times of waypoints among those of samples, which binary fractions hit.
RATE = 64


class Problem(BaseTrajectoryIPOPTProblem):
    """The problem as figaroh states it."""


class Trajectory(BaseOptimalTrajectory):
    """The subclass that figaroh asks for, one a robot. Its regressor of friction looks for entries that only a fit sets."""

    def initialize(self):
        """See figaroh."""
        joints = [self.model.joints[self.model.getJointId(name)] for name in self.active_joints]
        self.identif_config["act_idxv"] = [joint.idx_v for joint in joints]
        self.identif_config["act_idxq"] = [joint.idx_q for joint in joints]
        super().initialize()
        whole = self.WP.gen_rand_pool

        def narrowed(limits):
            whole(limits)
            self.WP.pool_q *= self.share

        self.WP.gen_rand_pool = narrowed

    def create_ipopt_problem(self, *parts):
        """See figaroh."""
        return Problem(self, *parts)


def configuration(spec: dict, waypoints: int, between: float) -> dict:
    """A configuration file in figaroh's unified format; what is not here keeps its defaults."""
    none = [0.0] * len(spec["joints"])
    return {
        "robot": {
            "name": "robot",
            "properties": {
                "joints": {"active_joints": spec["joints"]},
                "mechanics": {
                    "friction_coefficients": {"viscous": none, "static": none},
                    "actuator_inertias": none,
                    "joint_offsets": none,
                },
                "coupling": {"has_coupled_wrist": False},
            },
        },
        "tasks": {
            "identification": {
                "enabled": True,
                "problem": {
                    "model_components": {
                        "friction": spec["friction"],
                        "actuator_inertia": spec["rotor"],
                        "joint_offset": False,
                    }
                },
            },
            "optimal_trajectory": {
                "enabled": True,
                "problem": {"segment_attempts": 3, "max_iterations": spec.get("iterations", 200)},
                "trajectory": {"waypoints": waypoints, "frequency": RATE, "segment_duration": between},
            },
        },
    }


def planned(spec: dict, waypoints: int, segments: int, seed: int) -> tuple[float, dict]:
    """The condition number and the motion of one plan."""
    np.random.seed(seed)  # noqa: NPY002, figaroh draws from this generator
    between = spec["seconds"] / (segments * (waypoints - 1))
    robot = Robot(spec["urdf"], str(pathlib.Path(spec["urdf"]).parent))
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "robot.yaml"
        file.write_text(yaml.safe_dump(configuration(spec, waypoints, between)))
        trajectory = Trajectory(robot, spec["joints"], str(file))
        trajectory.share = spec["share"]
        trajectory.initialize()
        found = trajectory.solve(stack_reps=segments)
    if len(found["T_F"]) < segments:
        raise RuntimeError("IPOPT found no motion within the limits")
    parts = [np.concatenate([np.asarray(x)[(i > 0) :] for i, x in enumerate(found[k])]) for k in ("P_F", "V_F", "A_F")]
    condition = float(np.linalg.cond(trajectory._stack_base_regressors(*parts)))
    time_points = spec["seconds"] * np.linspace(0, 1, len(parts[0]))
    order = [robot.model.joints[robot.model.getJointId(name)].idx_v for name in spec["joints"]]
    motion = dict(zip(("qpos", "qvel", "qacc"), (p[:, order] for p in parts), strict=True))
    return condition, {"time": time_points, "base": len(trajectory.idx_b)} | motion


def main() -> int:
    """Plan until the minutes are over, and write the best."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("spec", type=pathlib.Path)
    options.add_argument("out", type=pathlib.Path)
    args = options.parse_args()
    logging.disable(logging.WARNING)
    spec = json.loads(args.spec.read_text())
    end, best, told = time.monotonic() + 60 * spec["minutes"], None, []
    for seed in range(100):
        for waypoints, segments in LAYOUTS:
            if told and time.monotonic() > end:
                break
            began = time.monotonic()
            try:
                condition, motion = planned(spec, waypoints, segments, seed)
            except RuntimeError as error:
                told.append([waypoints, segments, seed, None, str(error)])
                continue
            told.append([waypoints, segments, seed, condition, time.monotonic() - began])
            print(told[-1], file=sys.stderr, flush=True)
            if best is None or condition < best[0]:
                best = condition, motion
    if best is None:
        print(f"no plan: {told}", file=sys.stderr)
        return 1
    np.savez(args.out, condition=best[0], told=json.dumps(told), **best[1])
    return 0


if __name__ == "__main__":
    sys.exit(main())
