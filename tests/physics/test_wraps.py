"""Where tendons wrap geoms, against the paths that C MuJoCo gives them."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from dso_robotics.physics.backend import mjx, smooth
from dso_robotics.physics.device import put_model
from dso_robotics.physics.wraps import distance, inside, run_inside, wraps

MODEL = """<mujoco><worldbody><geom name="roll" type="{kind}" size="{radius} .03" euler="{turn}"/>{still}
  <site name="low" pos=".001 .002 -.02"/>
  <body pos="0 0 .004"><joint axis="0 1 0"/><geom size=".01"/><site name="high" pos="0 0 .01"/></body></worldbody>
  <tendon><spatial><site site="low"/><geom geom="roll" sidesite="side"/><site site="high"/></spatial></tendon></mujoco>"""
SIDE = '<site name="side" pos="{}"/>'
FAR = SIDE.format(".014 0 0")


def made(kind, radius, *, turn="90 0 0", still=FAR):
    text = MODEL.format(kind=kind, radius=radius, turn=turn, still=still)
    model = mujoco.MjModel.from_xml_string(text)
    data = mujoco.MjData(model)
    data.qpos[:] = 0.2
    mujoco.mj_forward(model, data)
    return model, data


@pytest.mark.parametrize("kind", ["cylinder", "sphere"])
def test_a_tendon_leaves_a_geom_that_reaches_one_of_its_sites(kind):
    _, data = made(kind, 0.005)
    (wrap,) = wraps(made(kind, 0.005)[0])
    near = distance(wrap, wrap.ends[1], data)
    for share, touched in ((0.9, True), (0.999, True), (1.001, False), (1.1, False)):
        model, data = made(kind, share * near)
        assert data.ten_wrapnum[0] == (4 if touched else 2)  # two points on the geom, or none
        assert (distance(wrap, wrap.ends[1], data) > model.geom_size[wrap.geom, 0]) == touched


@pytest.mark.parametrize("kind", ["cylinder", "sphere"])
@pytest.mark.parametrize("place", [".0005 0 0", ".0005 .0055 0", ".02 0 0"])
def test_a_tendon_runs_inside_where_the_side_site_is_nearer_than_the_radius(kind, place):
    """Inside, the path within the geom touches it once at most and is shorter than round it."""
    model, data = made(kind, 0.006, still=SIDE.format(place))
    (wrap,) = wraps(model)
    near = np.linalg.norm(np.fromstring(place, sep=" ")) < 0.006
    assert inside(wrap, model, data) == near == run_inside(model)[0]
    _, round_it = made(kind, 0.006)
    assert (data.ten_length[0] < round_it.ten_length[0] - 1e-4) == near


def test_mjx_has_the_path_of_c_where_the_side_site_is_on_another_body():
    """MJX compares the places of side site and geom in the frames of their two bodies."""
    model, _ = made("cylinder", 0.006, still='<body name="b" pos=".02 0 0"><site name="side" pos=".001 0 0"/></body>')
    assert not run_inside(model)[0]
    assert mjx.put_model(model, impl="jax")._impl.is_wrap_inside[0]
    device, data = put_model(model), mujoco.MjData(model)

    def length(qpos):
        return smooth.tendon(
            device, smooth.com_pos(device, smooth.kinematics(device, mjx.make_data(device).replace(qpos=qpos)))
        ).ten_length[0]

    value, slope = jax.jit(jax.value_and_grad(length))(jnp.array([0.3]))
    data.qpos[:] = 0.3
    mujoco.mj_forward(model, data)
    np.testing.assert_allclose(value, data.ten_length[0], rtol=1e-12)
    np.testing.assert_allclose(slope, data.ten_J[0], rtol=1e-9)
