"""`make demo`: identify a real two-joint arm from five of its recorded runs and predict the other four.

The recording is fetched from its authors' repository, or read from DSO_DATA. Without a network the bundled synthetic log of a
similar arm is used; it has friction, delay and quantisation that the model does not have.
"""

import shutil
import sys
from pathlib import Path

from dso_robotics.cli import main
from dso_robotics.data.assets import asset
from dso_robotics.data.log import write_log
from dso_robotics.data.registry import fetch
from dso_robotics.errors import DsoError

OUT = Path("demo-result")
# Start values half as large again as the published ones (friction, armature, mass, centre of mass), or half (gear).
FREE = (
    "joint/*/damping=0.0015",
    "joint/shoulder/frictionloss=0.219",
    "joint/elbow/frictionloss=0.184",
    "joint/elbow/armature=0.00414",
    "joint/*/stiffness=0.02",
    "body/upper/mass=0.839",
    "body/lower/mass=0.907",
    "body/upper/ipos[2]=-0.45",
    "body/lower/ipos[2]=-0.276",
    "actuator/tau2/gear=0.5",
)


def recording() -> tuple[Path, str]:
    """The log for the identification, and its rollouts that are only predicted."""
    try:
        log = fetch("dfki_double_pendulum_A0")
    except DsoError as error:
        print(f"{error}\n\nSo this demo runs on the bundled synthetic log instead.\n", file=sys.stderr)
        return asset("datasets/synthetic/two_joint_arm.h5"), "04,05"
    path = Path("two_joint_arm.h5")
    write_log(path, log)
    print("Two-joint torque-driven arm, recorded by DFKI (BSD-3-Clause): 9 runs at 500 Hz, 5 to fit, 4 to predict.\n")
    return path, "03,05,11,13"


def demo() -> int:
    """Identify and print the table."""
    log, hold_out = recording()
    if OUT.exists():
        shutil.rmtree(OUT)
    free = [f"--free={path}" for path in FREE]
    model = str(asset("models/two_joint_arm.xml"))
    options = [f"--hold-out={hold_out}", "--window=0.8", "--score-window=0.5", "--out", str(OUT)]
    return main(["identify", model, str(log), *free, *options])


if __name__ == "__main__":
    sys.exit(demo())
