"""Single steps of C MuJoCo as a JAX function: in full precision, also where only the caller's thread computes in float64."""

import subprocess
import sys

CODE = """
import concurrent.futures
import jax, jax.numpy as jnp, mujoco, numpy as np
from dso_robotics.physics.model import load
from dso_robotics.physics.step import State
from dso_robotics.robot.watch import SENSORS, step_on_c, watching

robot = load(mujoco.MjSpec.from_string('''
<mujoco><option timestep="0.01"/><worldbody>
<body><joint name="j" axis="0 1 0"/><geom size="0.1" pos="0 0 -0.3"/></body></worldbody>
<actuator><motor name="m" joint="j"/></actuator><sensor><jointpos name="p" joint="j"/></sensor></mujoco>'''))
assert not jax.config.jax_enable_x64
with jax.enable_x64(True):
    seen = watching(robot, robot.mj, ((SENSORS, 0),))
    angles = np.array([0.1 + 1e-12, 0.2])

    def after(angle, mass):
        body = State(qpos=angle[None], qvel=jnp.array([1.0]), act=jnp.zeros(0), warmstart=jnp.zeros(1), time=jnp.array(0.0))
        return step_on_c(seen, {"body_mass": jnp.array([0.0, 1.0]) * mass}, body, jnp.array([0.3]), 3)

    given = jnp.array(angles), jnp.array(2.5)
    ready = jax.jit(jax.vmap(after, (0, None))).lower(*given).compile()
# JAX calls back in threads of its own, which know nothing of the caller's setting.
with concurrent.futures.ThreadPoolExecutor(1) as pool:
    body, shown = pool.submit(ready, *given).result()
assert body.qpos.dtype == jnp.float64
for k, angle in enumerate(angles):
    robot.mj.body_mass[1] = 2.5
    data = mujoco.MjData(robot.mj)
    data.qpos[:], data.qvel[:], data.ctrl[:] = angle, 1.0, 0.3
    for _ in range(3):
        mujoco.mj_step(robot.mj, data)
    np.testing.assert_allclose(np.asarray(body.qpos[k]), data.qpos, rtol=0, atol=1e-15)
    np.testing.assert_allclose(np.asarray(shown[k]), data.qpos, rtol=0, atol=1e-15)
"""


def test_a_step_has_64_bits_where_only_the_caller_asked_for_them(monkeypatch):
    monkeypatch.setenv("JAX_ENABLE_X64", "0")
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
