"""Contacts of two shapes in the differentiable step against C MuJoCo, for every pair of shapes that MJX supports.

    python benchmarks/physics_pairs.py        # about a minute; writes benchmarks/results/physics_pairs.json

Two shapes at random orientations approach along a random line until they overlap by 0.5 to 8 mm; the velocity after one step
from rest is compared. docs/models.md has the table (`python benchmarks/physics_sweep.py --table` writes it again).
from provenance import command
"""

import itertools
import json
import pathlib

import mujoco
import numpy as np

from dso_robotics.cli.jax_setup import add_xla_flags, quick_to_compile

RESULTS = pathlib.Path(__file__).parent / "results" / "physics_pairs.json"
SHAPES = {
    "plane": 'type="plane" size="5 5 0.1"',
    "sphere": 'type="sphere" size="0.1"',
    "capsule": 'type="capsule" size="0.08 0.12"',
    "ellipsoid": 'type="ellipsoid" size="0.08 0.1 0.13"',
    "cylinder": 'type="cylinder" size="0.1 0.12"',
    "box": 'type="box" size="0.1 0.12 0.08"',
    "mesh": 'type="mesh" mesh="hull"',
}
SCENE = """
<mujoco>
  <option timestep="0.002" tolerance="0" iterations="100"><flag gravity="disable"/></option>
  <asset><mesh name="hull" vertex="0 0 0  0.2 0 0  0 0.25 0  0 0 0.2  0.1 0.1 -0.15"/></asset>
  <worldbody>{}<body><freejoint/><geom {} mass="1"/></body></worldbody>
</mujoco>
"""
STATES, SHALLOW, DEEP = 60, -5e-4, -8e-3


def main() -> None:
    add_xla_flags(*quick_to_compile())
    import jax

    jax.config.update("jax_enable_x64", True)
    found = {}
    for one, two in itertools.combinations_with_replacement(SHAPES, 2):
        if two == "plane":
            continue
        found[f"{one}, {two}"] = errors = compare(one, two)
        print(f"{one:10}{two:10}", errors or "no collision in MJX", flush=True)
        RESULTS.write_text(json.dumps({"command": command(), "pairs": found}, indent=1) + "\n")


def compare(one: str, two: str) -> dict[str, float] | None:
    """Share of states that agree to 1e-9, median and largest error of the velocity; None if MJX does not support the pair."""
    import jax
    import jax.numpy as jnp

    from dso_robotics.errors import DsoError
    from dso_robotics.physics import step as physics
    from dso_robotics.physics.device import put_model

    first = f"<geom {SHAPES[one]}/>"
    if one != "plane":
        first = f'<body><freejoint/><geom {SHAPES[one]} mass="1"/></body>'
    model = mujoco.MjModel.from_xml_string(SCENE.format(first, SHAPES[two]))
    try:
        made = put_model(model)
    except DsoError:
        return None
    states, want = touching(model, one == "plane")

    def velocity(qpos: jax.Array) -> jax.Array:
        return physics.advance(made, physics.make_state(made, qpos), jnp.zeros(0)).qvel

    got = np.asarray(jax.jit(jax.vmap(velocity))(states))
    errors = np.abs(got - want).max(1) / np.maximum(1.0, np.abs(want).max(1))
    return {"agree": float((errors < 1e-9).mean()), "median": float(np.median(errors)), "largest": float(errors.max())}


def touching(model: mujoco.MjModel, floor: bool) -> tuple[np.ndarray, np.ndarray]:
    """Configurations with a shallow contact, and C's velocity one step later."""
    rng, data, states, velocities = np.random.default_rng(0), mujoco.MjData(model), [], []
    while len(states) < STATES:
        mujoco.mj_resetData(model, data)
        for joint in range(model.njnt):
            turn = rng.normal(size=4)
            data.qpos[7 * joint + 3 : 7 * joint + 7] = turn / np.linalg.norm(turn)
        along = np.array([0.0, 0.0, 1.0]) if floor else rng.normal(size=3)
        for distance in np.linspace(0.5, 0, 251):
            data.qpos[-7:-4] = along / np.linalg.norm(along) * distance
            mujoco.mj_forward(model, data)
            if data.ncon and data.contact.dist.min() < SHALLOW:
                break
        if data.ncon and data.contact.dist.min() > DEEP:
            states.append(data.qpos.copy())
            mujoco.mj_step(model, data)
            velocities.append(data.qvel.copy())
    return np.array(states), np.array(velocities)


if __name__ == "__main__":
    main()
