"""A cost that only steps: what gradients through the chain, scores and an actor-critic make of it.

    python benchmarks/companions_step.py [--seeds 3]

A cart of 1 kg on a rail is to come within 0.1 m of the middle and stay: every control step outside costs 1, every other 0.
It starts about 0.5 m away, is pushed with at most 2 N, and an episode has 40 control steps. The policy is a network of 16
units. Each method trains with the settings of a study that names nothing but the method and the number of iterations; the
costs are the mean of the same episodes on C MuJoCo. Results are in benchmarks/results/companions_step.json.
"""

import argparse
import json
import pathlib
import sys
import tempfile
import time

import numpy as np
from provenance import begun

ROOT = pathlib.Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "companions_step.json"
sys.path.insert(0, str(ROOT))
MODEL = """<mujoco model="cart">
  <option timestep="0.05" integrator="Euler"><flag contact="disable" eulerdamp="disable"/></option>
  <worldbody><body name="cart">
    <joint name="x" type="slide" axis="1 0 0" damping="0.1"/>
    <geom name="cart" type="box" size="0.1 0.1 0.1" mass="1"/>
  </body></worldbody>
  <actuator><motor name="push" joint="x" gear="2" ctrllimited="true" ctrlrange="-1 1"/></actuator>
</mujoco>"""
COST = """import jax.numpy as jnp

def cost(scene):
    return jnp.where(jnp.abs(scene.state.qpos[0]) < 0.1, 0.0, 1.0)
"""
STUDY = """
model = "cart.xml"
seconds = 2.0
control_step = 0.05
engine = "mjx"
seed = {seed}
[policy]
hidden = [16]
noise = 0.3
[start]
spread = 0.5
[explore]
position = {{ x = [-1.0, 1.0] }}
velocity = {{ x = [-1.0, 1.0] }}
[cost.near]
kind = "python"
file = "cost.py"
[training]
environments = 32
horizon = 16
iterations = {iterations}
method = "{method}"
"""
# Method and iterations of 512 control steps.
ROWS = (("pathwise", 200), ("pathwise", 1500), ("mixed", 1500), ("ppo", 1500), ("sac", 200))


def trained(method: str, iterations: int, seed: int, folder: pathlib.Path) -> dict:
    """One training: cost before and after, and CPU time [s]."""
    from dso_robotics.studies.train import train
    from dso_robotics.studies.train_study import TrainStudy

    for name, text in (("cart.xml", MODEL), ("cost.py", COST)):
        (folder / name).write_text(text)
    (folder / "study.toml").write_text(STUDY.format(seed=seed, iterations=iterations, method=method))
    began = time.process_time()
    cost = train(TrainStudy.read(folder / "study.toml"), folder / "out").summary["cost"]
    return {"before": cost["before"], "after": cost["total"], "cpu": time.process_time() - began}


def main() -> None:
    """Train what is not there yet, and print the table of the docs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    from dso_robotics.cli.jax_setup import prepare_jax

    prepare_jax()
    found = begun(RESULTS, {"rows": {}})
    for seed in range(given.seeds):
        for method, iterations in ROWS:
            name = f"{method} {iterations} {seed}"
            if name in found["rows"]:
                continue
            with tempfile.TemporaryDirectory() as folder:
                found["rows"][name] = trained(method, iterations, seed, pathlib.Path(folder))
            RESULTS.write_text(json.dumps(found, indent=1) + "\n")
            print(name, found["rows"][name], flush=True)
    print("\n| method | control steps | cost before | cost after, by seed | CPU [s] |\n| --- | --- | --- | --- | --- |")
    for method, iterations in ROWS:
        rows = [row for name, row in found["rows"].items() if name.startswith(f"{method} {iterations} ")]
        before, after = np.mean([row["before"] for row in rows]), ", ".join(f"{row['after']:.1f}" for row in rows)
        cpu = np.median([row["cpu"] for row in rows])
        print(f"| `{method}` | {512 * iterations:,} | {before:.1f} | {after} | {cpu:.0f} |")


if __name__ == "__main__":
    main()
