"""Mass, centre of mass and inertia from geoms, against MuJoCo's compiler."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dso_robotics.errors import DsoError
from dso_robotics.physics.geometry import SOLIDS, extent, geometry, moments, volume
from dso_robotics.physics.inertia import principal_fields, rotation
from dso_robotics.physics.model import load


def random_spec(seed: int) -> mujoco.MjSpec:
    """A chain of bodies with geoms of all kinds, sizes, poses and densities, some with a given mass, some with none."""
    rng = np.random.default_rng(seed)
    spec = mujoco.MjSpec()
    spec.compiler.inertiagrouprange = (0, 2)
    body = spec.worldbody
    for number in rng.permutation([1, 1, 2, 3, 5]):
        body = body.add_body(name=f"body{len(spec.bodies)}", pos=rng.normal(size=3), quat=rng.normal(size=4))
        body.add_joint(axis=rng.normal(size=3))
        for i in range(number):
            geom = body.add_geom(
                type=int(rng.choice(SOLIDS)),
                size=10 ** rng.uniform(-2, 0, 3),
                pos=rng.normal(size=3),
                quat=rng.normal(size=4),
                density=10 ** rng.uniform(1, 4),
                group=2,
            )
            if i == 0 and rng.random() < 0.5:
                geom.mass = rng.uniform(0.1, 5)
            if i == 2:
                geom.mass = 0
            if i == 3:
                geom.density = 0
            if i == 4:
                geom.group = 3
    return spec


def compiled(model: mujoco.MjModel) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    axes = rotation(model.body_iquat)
    tensor = (axes * model.body_inertia[:, None, :]) @ np.swapaxes(axes, -1, -2)
    return model.body_mass[1:], model.body_ipos[1:], tensor[1:]


def worst(found, wanted) -> float:
    """Largest error of each body's mass, centre of mass and tensor, relative to the largest entry."""
    return max(
        float(np.max(np.abs(f - w).reshape(len(w), -1).max(1) / np.abs(w).reshape(len(w), -1).max(1)))
        for f, w in zip(found, wanted, strict=True)
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_inertia_of_geoms_is_the_compilers(seed):
    robot = load(random_spec(seed))
    model = robot.mj
    made = geometry(robot, range(1, model.nbody))
    assert worst(made.inertials(model.geom_size, model.geom_pos, model.geom_quat), compiled(model)) < 1e-11


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_changed_geoms_give_what_the_changed_model_compiles_to(seed):
    robot = load(random_spec(seed))
    rng = np.random.default_rng(seed + 1)
    size = robot.mj.geom_size * np.exp(rng.normal(size=robot.mj.geom_size.shape) / 2)
    pos = robot.mj.geom_pos + rng.normal(size=robot.mj.geom_pos.shape)
    quat = rng.normal(size=robot.mj.geom_quat.shape)
    quat /= np.linalg.norm(quat, axis=1, keepdims=True)
    spec = robot.spec.copy()
    for geom in spec.geoms:
        geom.size, geom.pos, geom.quat = size[geom.id], pos[geom.id], quat[geom.id]
    made = geometry(robot, range(1, robot.mj.nbody))
    assert worst(made.inertials(size, pos, quat), compiled(spec.compile())) < 1e-11


def test_batches_and_jax_agree_with_single_numpy_calls():
    robot = load(random_spec(3))
    model = robot.mj
    made = geometry(robot, [1, 3])
    np.testing.assert_array_equal(made.bodies, [1, 3])
    sizes = model.geom_size * np.array([0.5, 1.0, 2.0])[:, None, None]
    batch = made.inertials(sizes, model.geom_pos, model.geom_quat)
    on_device = jax.jit(made.inertials)(*map(jnp.asarray, (sizes, model.geom_pos, model.geom_quat)))
    for i, size in enumerate(sizes):
        for many, device, one in zip(
            batch, on_device, made.inertials(size, model.geom_pos, model.geom_quat), strict=True
        ):
            np.testing.assert_allclose(many[i], one, rtol=1e-13, atol=1e-15)
            np.testing.assert_allclose(device[i], one, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", SOLIDS)
def test_derivatives_exist_where_principal_moments_coincide(kind):
    size = np.array([0.1, 0.1, 0.1])

    def total(size):
        return volume(kind, size) * moments(kind, size).sum()

    slope = jax.grad(total)(jnp.asarray(size))
    step = 1e-6
    numeric = [(total(size + step * e) - total(size - step * e)) / (2 * step) for e in np.eye(3)]
    np.testing.assert_allclose(slope, numeric, rtol=1e-7, atol=1e-12)


def test_massless_geoms_and_bodies_add_nothing():
    robot = load(
        mujoco.MjSpec.from_string(
            '<mujoco><worldbody><body><joint/><geom size="0.1"/><geom type="box" size="1 1 1" mass="0"/>'
            '<body pos="1 0 0"><geom size="0.2" pos="0.3 0 0" mass="0"/></body></body></worldbody></mujoco>'
        )
    )
    made = geometry(robot, [1, 2])
    np.testing.assert_array_equal(made.bodies, [1])
    np.testing.assert_array_equal(made.geoms, [0])


def test_axes_that_are_still_principal_are_kept():
    """A body compiled as simple stays so in C: MuJoCo refuses it with its axes permuted."""
    text = '<mujoco><worldbody><body><joint/><geom type="box" size="0.1 0.2 0.05"/></body></worldbody></mujoco>'
    model = mujoco.MjModel.from_xml_string(text)
    fields = principal_fields(
        model, {"body_inertia_full": np.array([[np.full((3, 3), np.nan), np.diag([1.0, 2, 1.5])]])}
    )
    np.testing.assert_allclose(fields["body_inertia"][0, 1], [1, 2, 1.5])
    np.testing.assert_array_equal(fields["body_iquat"][0, 1], [1, 0, 0, 0])
    skew = np.diag([1.0, 2, 1.5]) + 0.1 * (1 - np.eye(3))
    fields = principal_fields(model, {"body_inertia_full": np.array([[np.full((3, 3), np.nan), skew]])})
    axes = rotation(fields["body_iquat"][0, 1])
    np.testing.assert_allclose(axes @ np.diag(fields["body_inertia"][0, 1]) @ axes.T, skew, atol=1e-14)


MESH = '<asset><mesh name="m" vertex="0 0 0 1 0 0 0 1 0 0 0 1"/></asset>'


@pytest.mark.filterwarnings("ignore:compiler attribute .settotalmass.")
@pytest.mark.parametrize(
    ("inside", "before", "words"),
    [
        ('<inertial pos="0 0 0" mass="1" diaginertia="1 1 1"/><geom size="0.1"/>', "", ["<inertial>", "Remove"]),
        ('<geom name="g" size="0.1" shellinertia="true"/>', "", ["'g'", "shell"]),
        ('<geom name="g" type="mesh" mesh="m"/>', MESH, ["'g'", "mesh", "capsule"]),
        ('<geom size="0.1"/>', '<compiler boundmass="100"/>', ["boundmass", "100"]),
        ('<geom size="0.1"/>', '<compiler settotalmass="3"/>', ["settotalmass"]),
        ("", "", ["no geoms"]),
    ],
)
def test_inertia_that_geometry_does_not_determine_is_refused(inside, before, words):
    text = f'<mujoco>{before}<worldbody><body name="limb">{inside}</body></worldbody></mujoco>'
    with pytest.raises(DsoError) as error:
        geometry(load(mujoco.MjSpec.from_string(text)), [1])
    for word in ("'limb'", *words):
        assert word in str(error.value)


def test_a_frame_aligned_with_inertia_is_refused():
    text = '<mujoco><worldbody><body name="b"><freejoint align="true"/><geom size="0.1"/></body></worldbody></mujoco>'
    with pytest.raises(DsoError, match='align="false"'):
        geometry(load(mujoco.MjSpec.from_string(text)), [1])


def test_a_compiled_model_has_no_densities():
    with pytest.raises(DsoError, match="load the XML file or an MjSpec"):
        geometry(load(random_spec(0).compile()), [1])


@pytest.mark.parametrize("kind", SOLIDS)
def test_a_geom_reaches_as_far_down_as_its_contact_with_a_plane(kind):
    rng = np.random.default_rng(kind)
    for _ in range(5):
        spec = mujoco.MjSpec()
        spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=[9, 9, 1])
        body = spec.worldbody.add_body(pos=[0, 0, 0.05], quat=rng.normal(size=4))
        body.add_freejoint()
        body.add_geom(type=kind, size=rng.uniform(0.1, 0.5, 3))
        model = spec.compile()
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        down = -data.geom_xmat[1].reshape(3, 3)[2]
        lowest = 0.05 - extent(kind, model.geom_size[1], down)
        assert lowest == pytest.approx(min(contact.dist for contact in data.contact), abs=1e-9)
    slope = jax.grad(lambda way: extent(kind, jnp.array([0.2, 0.3, 0.4]), way))(jnp.array([0.0, 0.0, 1.0]))
    assert np.isfinite(slope).all()
