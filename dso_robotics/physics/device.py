"""Put a compiled MuJoCo model on the device, ready to be differentiated."""

import copy
from collections.abc import Sequence

import mujoco
import numpy as np

from dso_robotics.errors import DsoError
from dso_robotics.extras import needing
from dso_robotics.physics.backend import mjx, replaced
from dso_robotics.physics.refuse import refuse
from dso_robotics.physics.wraps import run_inside

with needing("the differentiable engine"):
    import jax
    import jax.numpy as jnp


def put_model(
    model: mujoco.MjModel,
    *,
    friction_dofs: Sequence[int] | np.ndarray = (),
    friction_tendons: Sequence[int] | np.ndarray = (),
    fluid: bool = False,
    source: str = "this model",
) -> mjx.Model:
    """`model` as an MJX model (JAX implementation). Floats have JAX's default type: float64 if `jax_enable_x64` is set.

    MJX decides here which tendons run inside the geoms that they wrap; it compares places in the frames of two bodies where the
    side site is on another body than the geom, so the reference posture decides in its place.

    MJX decides here which degrees of freedom have friction loss and whether there is a fluid. If a friction loss is zero now
    but will be a parameter, name it in `friction_dofs` or `friction_tendons`. If density, viscosity or wind will be a
    parameter, set `fluid`.

    Raises:
      DsoError: `source` has a feature that MJX ignores or does not support; the message says what to change.
    """
    refuse(model, source)
    if fluid and model.opt.integrator == mujoco.mjtIntegrator.mjINT_IMPLICITFAST:
        raise DsoError(f"{source}: fluid drag does not work with the integrator 'implicitfast': use 'Euler' or 'RK4'.")
    energy = int(mujoco.mjtEnableBit.mjENBL_ENERGY)
    if model.opt.enableflags & energy:
        model = copy.deepcopy(model)  # MJX refuses this flag, which only computes numbers that no step reads
        model.opt.enableflags &= ~energy
    if model.opt.disableflags & mujoco.mjtDisableBit.mjDSBL_CONTACT:
        model = copy.deepcopy(model)  # MJX would refuse pairs without a collision function, although nothing collides
        model.geom_contype[:] = model.geom_conaffinity[:] = 0
    try:
        here = jax.local_devices()[0]  # the first of all may belong to another process
        made = mjx.put_model(model, impl="jax", device=here)
        mjx.make_data(made, device=here)
    except (NotImplementedError, ValueError) as error:
        raise DsoError(
            f"{source}: the differentiable engine (MJX) does not support it: {' '.join(str(error).split())} "
            "Remove the feature, or use the C engine (--engine mujoco)."
        ) from error
    # MJX binds its arrays to one device. As numbers they go wherever they are needed.
    made = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)) if isinstance(x, jax.Array) else x, made)
    dofs, tendons = (np.array(x) for x in (made._impl.dof_hasfrictionloss, made._impl.tendon_hasfrictionloss))
    dofs[np.asarray(friction_dofs, int)] = True
    tendons[np.asarray(friction_tendons, int)] = True
    return replaced(
        made,
        {
            "_impl.dof_hasfrictionloss": dofs,
            "_impl.tendon_hasfrictionloss": tendons,
            "_impl.is_wrap_inside": run_inside(model),
            "opt._impl.has_fluid_params": bool(made.opt._impl.has_fluid_params) or fluid,
        },
    )
