"""Design maps against recompiling the edited description."""

import copy

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from design_robot import grow, legged, stretch, thicken, tilt
from hypothesis import given, settings
from hypothesis import strategies as st

from dso_robotics.errors import DsoError
from dso_robotics.physics.batch import BatchEngine
from dso_robotics.physics.design import (
    Design,
    Gear,
    JointAxis,
    JointPosition,
    LimbLength,
    LimbRadius,
    SpringReference,
    SpringStiffness,
    UniformScale,
    compose,
)
from dso_robotics.physics.export import to_mjcf
from dso_robotics.physics.inertia import principal_fields, rotation
from dso_robotics.physics.model import Robot, load

# Frames that are equal but for a turn about an axis of symmetry are compared by what they do.
_TURNED = ("body_inertia", "body_iquat", "geom_quat", "bvh_aabb")


def everything(robot: Robot) -> Design:
    """All maps at once, in an order in which each acts on what others changed."""
    maps = (
        JointPosition(robot, "knee"),
        LimbRadius(robot, "thigh"),
        LimbLength(robot, "thigh"),
        UniformScale(robot, "shin"),
        JointAxis(robot, "knee"),
        Gear(robot, "hip"),
        SpringStiffness(robot, "knee"),
        SpringReference(robot, "knee"),
    )
    return compose(maps, robot)


def edited(seed: int, numbers: np.ndarray, design: Design) -> mujoco.MjModel:
    """The model compiled from a description with the numbers of `everything` worked into it."""
    spec = legged(seed)
    knee, motor = spec.joint("knee"), spec.actuator("hip")
    initial = design.initial
    end = design.maps[2].direction * design.maps[2].length + spec.body("thigh").joints[0].pos
    knee.pos = numbers[:3]
    thicken(spec, "thigh", numbers[3] / initial[3])
    stretch(spec, "thigh", numbers[4] / initial[4], end)
    grow(spec.body("shin"), numbers[5])
    axis = np.array(knee.axis)
    knee.axis = tilt(axis, design.maps[4].frame[1:], numbers[6:8])
    motor.gear[0] = numbers[8]
    knee.stiffness[0] = numbers[9]
    knee.springref = numbers[10]
    return spec.compile()


def some(design: Design, seed: int) -> np.ndarray:
    """Random numbers within bounds."""
    rng = np.random.default_rng(seed)
    low, high = np.maximum(design.low, -2), np.minimum(design.high, 5)
    return rng.uniform(low, high)


def tensors(model: mujoco.MjModel) -> np.ndarray:
    axes = rotation(model.body_iquat)
    return (axes * model.body_inertia[:, None, :]) @ np.swapaxes(axes, -1, -2)


def applied(model: mujoco.MjModel, fields: dict) -> mujoco.MjModel:
    """`model` with `fields`, as the C engine sets them."""
    model = copy.copy(model)
    for name, value in principal_fields(model, {k: np.asarray(v)[None] for k, v in fields.items()}).items():
        getattr(model, name)[...] = value[0].reshape(getattr(model, name).shape)
    mujoco.mj_setConst(model, mujoco.MjData(model))
    return model


def assert_same_model(found: mujoco.MjModel, wanted: mujoco.MjModel) -> None:
    """Every number of the two models, derived constants included."""
    for name in dir(wanted):
        value = getattr(wanted, name) if name[0] != "_" and name not in _TURNED else None
        if isinstance(value, np.ndarray) and value.dtype == float and value.size:
            np.testing.assert_allclose(
                getattr(found, name), value, rtol=1e-9, atol=1e-11 * np.abs(value).max(), err_msg=name
            )
    tensor = tensors(wanted)
    np.testing.assert_allclose(tensors(found), tensor, rtol=1e-9, atol=1e-11 * tensor.max())
    round_ones = np.isin(wanted.geom_type, (mujoco.mjtGeom.mjGEOM_CAPSULE, mujoco.mjtGeom.mjGEOM_CYLINDER))
    found_axes, axes = rotation(found.geom_quat), rotation(wanted.geom_quat)
    np.testing.assert_allclose(found_axes[round_ones, :, 2], axes[round_ones, :, 2], atol=1e-11)
    np.testing.assert_allclose(found_axes[~round_ones], axes[~round_ones], atol=1e-11)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_all_maps_together_give_the_recompiled_model(seed):
    robot = load(legged(seed))
    design = everything(robot)
    numbers = some(design, seed)
    assert_same_model(applied(robot.mj, design(numbers)), edited(seed, numbers, design))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_the_models_own_numbers_give_the_model(seed):
    robot = load(legged(seed))
    design = everything(robot)
    fields = design(design.initial)
    assert_same_model(applied(robot.mj, fields), robot.mj)
    full = fields.pop("body_inertia_full")
    assert np.isnan(full[robot.mj.body("torso").id]).all()
    for name, value in fields.items():
        np.testing.assert_allclose(value, getattr(robot.mj, name), rtol=1e-12, atol=1e-14, err_msg=name)


def alone(robot: Robot, which: str):
    return {
        "length": lambda: LimbLength(robot, "thigh"),
        "radius": lambda: LimbRadius(robot, "shin"),
        "scale": lambda: UniformScale(robot, "torso"),
    }[which]()


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**6))
@pytest.mark.parametrize("which", ["length", "radius", "scale"])
def test_one_map_alone_gives_the_recompiled_model(which, seed):
    spec, robot = legged(seed), load(legged(seed))
    one = alone(robot, which)
    value = float(np.random.default_rng(seed).uniform(one.low[0], one.high[0]))
    factor = value / one.initial[0]
    if which == "length":
        stretch(spec, "thigh", factor, one.direction * one.length + spec.body("thigh").joints[0].pos)
    elif which == "radius":
        thicken(spec, "shin", factor)
    else:
        grow(spec.body("torso"), factor)
    fields = compose([one], robot)(np.array([value]))
    assert_same_model(applied(robot.mj, fields), spec.compile())


def test_a_limb_ends_where_its_farthest_child_hangs_or_its_longest_geom_ends():
    robot = load(legged(0))
    shin, thigh = robot.mj.body("shin"), LimbLength(robot, "thigh")
    near = robot.mj.joint("hip").pos
    far = shin.pos + rotation(shin.quat) @ robot.mj.joint("knee").pos
    np.testing.assert_allclose(near + thigh.length * thigh.direction, far, atol=1e-12)
    leaf = text('<geom size="0.1"/><geom type="capsule" fromto="0.1 0 0 0.1 0 -2" size="0.1"/>')
    tip = LimbLength(leaf, "limb")
    np.testing.assert_allclose(tip.length * tip.direction, [0.1, 0, -2], atol=1e-12)


def scalar(fields: dict, weights: dict, xp) -> float:
    return sum((xp.asarray(weights[name]) * fields[name]).sum() for name in weights)


def test_gradients_are_those_of_the_recompiled_model():
    seed = 5
    robot = load(legged(seed))
    design = everything(robot)
    numbers = some(design, 11)
    rng = np.random.default_rng(0)
    fields = design(numbers)
    weights = {k: rng.normal(size=v.shape) for k, v in fields.items() if k not in ("geom_quat", "body_inertia_full")}
    shaped = design.geometry.bodies
    tensor_weights = rng.normal(size=(len(shaped), 3, 3))

    def ours(numbers):
        fields = design(numbers)
        return scalar(fields, weights, jnp) + (tensor_weights * fields["body_inertia_full"][shaped]).sum()

    def compiled(numbers):
        model = edited(seed, numbers, design)
        fields = {name: getattr(model, name) for name in weights}
        return scalar(fields, weights, np) + (tensor_weights * tensors(model)[shaped]).sum()

    value, slope = jax.jit(jax.value_and_grad(ours))(jnp.asarray(numbers))
    np.testing.assert_allclose(value, compiled(numbers), rtol=1e-11)
    for i, direction in enumerate(np.eye(design.size)):
        step = 1e-5 * direction
        numeric = (compiled(numbers + step) - compiled(numbers - step)) / 2e-5
        np.testing.assert_allclose(slope[i], numeric, rtol=1e-6, atol=1e-7, err_msg=design.names[i])
    assert np.isfinite(jax.jit(jax.grad(ours))(jnp.asarray(design.initial))).all()


def test_batches_and_jax_agree_with_single_calls():
    robot = load(legged(2))
    design = everything(robot)
    numbers = np.stack([some(design, i) for i in range(6)]).reshape(2, 3, -1)
    many, device = design(numbers), jax.jit(jax.vmap(jax.vmap(design)))(jnp.asarray(numbers))
    for name, value in design(numbers[1, 2]).items():
        assert many[name].shape == (2, 3, *value.shape)
        np.testing.assert_allclose(many[name][1, 2], value, rtol=1e-12, atol=1e-14, err_msg=name)
        np.testing.assert_allclose(device[name][1, 2], value, rtol=1e-11, atol=1e-13, err_msg=name)


def test_the_c_engine_simulates_many_designs_as_plain_mujoco_does_each():
    robot = load(legged(4))
    design = everything(robot)
    numbers = np.stack([some(design, i) for i in range(3)])
    model = robot.mj
    start = np.tile(np.concatenate([model.qpos0, 0.1 * np.ones(model.nv)]), (3, 1))
    found = BatchEngine(model).simulate(design(numbers), start, np.ones((3, 5, model.nu)))
    for i, row in enumerate(numbers):
        wanted = edited(4, row, design)
        data = mujoco.MjData(wanted)
        data.qpos[:], data.qvel[:], data.ctrl[:] = start[i, : model.nq], start[i, model.nq :], 1.0
        for _ in range(5):
            mujoco.mj_step(wanted, data)
        np.testing.assert_allclose(found.state[i, -1], np.concatenate([data.qpos, data.qvel]), rtol=1e-8, atol=1e-9)


def text(limb: str, *, before: str = "", joint: str = '<joint name="j"/>', after: str = "") -> Robot:
    return load(
        mujoco.MjSpec.from_string(
            f'<mujoco>{before}<worldbody><body name="limb">{joint}{limb}</body></worldbody>{after}</mujoco>'
        )
    )


ROD = '<geom type="capsule" fromto="0 0 0 0 0 1" size="0.1"/>'
MESH = '<asset><mesh name="m" vertex="0 0 0 1 0 0 0 1 0 0 0 1"/></asset>'


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: LimbLength(text(ROD), "lims"), ["'lims'", "'limb'"]),
        (lambda: LimbLength(text(ROD), "world"), ["world", "'limb'"]),
        (lambda: JointPosition(text(ROD), "k"), ["joint", "'k'", "'j'"]),
        (lambda: Gear(text(ROD), "motor"), ["actuator", "'motor'"]),
        (lambda: LimbLength(text('<geom size="0.1"/>'), "limb"), ["zero length", "end=(x, y, z)"]),
        (lambda: LimbLength(text(ROD), "limb", end=(0, 0, 0)), ["zero length"]),
        (lambda: LimbLength(text(ROD), "limb", end=(0, 0)), ["three numbers"]),
        (lambda: LimbLength(text('<geom type="mesh" mesh="m"/>', before=MESH), "limb"), ["mesh", "capsule"]),
        (lambda: LimbRadius(text(ROD + '<geom type="mesh" mesh="m" mass="0"/>', before=MESH), "limb"), ["mesh"]),
        (
            lambda: LimbLength(text(f'<inertial pos="0 0 0" mass="1" diaginertia="1 1 1"/>{ROD}'), "limb"),
            ["<inertial>"],
        ),
        (lambda: LimbLength(text(f'<body name="b">{ROD}</body>', joint=""), "limb"), ["no geoms"]),
        (lambda: UniformScale(text('<site/><body name="b"/>', joint=""), "limb"), ["no geoms"]),
        (lambda: LimbLength(text(ROD + '<geom type="box" size=".1 .2 .3" euler="9 0 0"/>'), "limb"), ["box", "angle"]),
        (lambda: LimbLength(text(ROD), "limb", bounds=(0, 2)), ["body/limb/length", "above 0"]),
        (lambda: LimbRadius(text(ROD), "limb", bounds=(-1, 2)), ["body/limb/radius", "above 0"]),
        (lambda: UniformScale(text(ROD), "limb", bounds=(2, 1)), ["body/limb/scale", "bounds=(LOW, HIGH)"]),
        (lambda: LimbLength(text(ROD), "limb", bounds=(2, 3)), ["outside", "2 to 3"]),
        (lambda: JointPosition(text(ROD), "j", bounds=((0, 1), 2)), ["one number or 3"]),
        (lambda: JointPosition(text(ROD, joint='<joint name="j" type="slide"/>'), "j"), ["slide", "hinge"]),
        (lambda: JointAxis(text(ROD, joint='<joint name="j" type="ball"/>'), "j"), ["ball", "no axis"]),
        (lambda: SpringStiffness(text(ROD, joint='<joint name="j" type="ball"/>'), "j"), ["hinge and slide"]),
        (lambda: compose([], text(ROD)), ["at least one"]),
        (lambda: compose([LimbLength(text(ROD), "limb")], text(ROD)), ["another robot"]),
    ],
)
def test_bad_input_is_refused_with_its_cure(make, words):
    with pytest.raises(DsoError) as error:
        make()
    for word in words:
        assert word in str(error.value)


def test_one_number_is_not_set_twice():
    robot = text(ROD)
    with pytest.raises(DsoError, match=r"body/limb/length.*keep one"):
        compose([LimbLength(robot, "limb"), LimbLength(robot, "limb")], robot)


def test_the_wrong_count_of_numbers_is_refused():
    robot = text(ROD)
    with pytest.raises(DsoError, match="takes 1 numbers"):
        compose([LimbLength(robot, "limb")], robot)(np.zeros(2))


def test_a_body_compiled_as_simple_is_scaled_but_its_joint_does_not_move():
    """C MuJoCo keeps the shortcut and silently computes the wrong inertia when the joint moves."""
    box = '<geom type="box" size="0.1 0.2 0.05"/>'
    robot = text(box)
    assert robot.mj.body_simple[1]
    scaled = applied(robot.mj, compose([UniformScale(robot, "limb")], robot)(np.array([1.5])))
    assert_same_model(scaled, text('<geom type="box" size="0.15 0.3 0.075"/>').mj)
    for one in (JointPosition(robot, "j"), JointAxis(robot, "j")):
        with pytest.raises(DsoError, match='simple="false"'):
            compose([one], robot)
    ball = '<geom size="0.1" pos="0 0 {}" mass="{}"/>'
    pair = text(ball.format(0.2, 1000 * 4 / 3 * np.pi * 1e-3) + '<geom size="0.1" pos="0 0 -0.2"/>')
    with pytest.raises(DsoError, match="centre of mass"):
        compose([UniformScale(pair, "limb")], pair)


def test_an_exported_design_is_the_recompiled_one(tmp_path):
    """Limb lengths, radii and gears written to MJCF: plain MuJoCo compiles them to the fields the maps gave."""
    robot = load(legged(3))
    design = compose([LimbLength(robot, "thigh"), LimbRadius(robot, "shin"), SpringStiffness(robot, "knee")], robot)
    fields = design(design.initial * np.array([1.2, 0.8, 1.5])[: design.size])
    path = tmp_path / "design.xml"
    path.write_text(to_mjcf(robot, fields))
    model = mujoco.MjModel.from_xml_path(str(path))
    for name in ("body_pos", "body_mass", "geom_size", "geom_pos", "site_pos", "jnt_pos", "jnt_stiffness"):
        if name in fields:
            np.testing.assert_allclose(np.asarray(getattr(model, name)), fields[name], rtol=1e-5, atol=1e-6)
