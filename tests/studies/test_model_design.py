"""`method = "model_design"`: gradient, the best gain where the model can be right, and what it finds where it cannot."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
import scipy.linalg
import scipy.optimize

import dso_robotics as dso
from dso_robotics.core.method.learner import Learner
from dso_robotics.data.log import Log
from dso_robotics.data.rollout import Rollout
from dso_robotics.data.run_file import read_run
from dso_robotics.errors import DsoError
from dso_robotics.physics.model import load
from dso_robotics.robot.deployed_policy import Policy
from dso_robotics.studies.train import method_of, train
from dso_robotics.studies.train_build import build
from dso_robotics.studies.train_study import TrainStudy
from tests.studies.train_robots import CART, PLANNED, linear_cart

DT = 0.05
Q, R = np.diag([1.0, 0.1]), 0.3
# The motor of the real cart answers with a lag of 0.8 s, and the model has none. With a smaller weight of the control, a
# regulator that does not know of the lag drives the cart to and fro.
EAGER = 0.1
LATE = CART.replace(
    '<motor name="push" joint="x" gear="2"/>',
    '<general name="push" joint="x" gear="2" dyntype="filterexact" dynprm="0.8"/>',
)


def study(folder, model=CART, **tables):
    """The study with other entries in some of its tables."""
    (folder / "real.xml").write_text(model)
    (folder / "plan.xml").write_text(CART)
    (folder / "study.toml").write_text(PLANNED)
    asked = TrainStudy.read(folder / "study.toml")
    before = asked.as_dict()
    merged = {name: {**(before[name] or {}), **t} if isinstance(t, dict) else t for name, t in tables.items()}
    return asked.changed(merged) if tables else asked


def exact(model: str, gain: np.ndarray, effort: float = R) -> float:
    """sum_t x.Q.x + effort u^2 of the real cart under u = -gain (x, v), from x = 1 at rest, without end or noise."""
    mj = mujoco.MjModel.from_xml_string(model)
    size = 2 + mj.na
    a, b = np.zeros((size, size)), np.zeros((size, 1))
    mujoco.mjd_transitionFD(mj, mujoco.MjData(mj), 1e-6, 1, a, b, None, None)
    k = np.zeros((1, size))
    k[0, :2] = gain
    closed = a - b @ k
    if np.max(np.abs(np.linalg.eigvals(closed))) >= 1.0:
        return np.inf
    cost = k.T @ k * effort
    cost[:2, :2] += Q
    return float(scipy.linalg.solve_discrete_lyapunov(closed.T, cost)[0, 0])


def regulator_in(folder) -> np.ndarray:
    """The gain (2,) that a result holds."""
    return read_run(folder / "run.h5")[0]["plan"]["gain"][0]


def test_the_gradient_is_that_of_differences_of_the_whole_map(tmp_path):
    """Numbers -> gain -> noisy windows of the late cart on C MuJoCo, closed by a critic that is held."""
    task = build(study(tmp_path, LATE))
    chain, method = task.chain, method_of(task)
    learner = method.init(jax.random.key(0), jnp.asarray(chain.layout.initial))
    here, settings = chain.layout.where("plan"), method.settings

    def windows(at: Learner):
        gradients, paths = method._gradients(at, jax.random.key(1), 0.0, method.play(at))
        value = method._value(learner.slow, learner, learner.theta)
        last = jax.tree.map(lambda leaf: leaf[:, -1], paths.states)
        weights = settings.gamma ** jnp.arange(settings.horizon + 1)
        cost = paths.costs @ weights + weights[-1] * jax.vmap(value.closing)(last)
        return gradients.mean(0), float(cost.mean())

    found = method.pulled(learner, windows(learner)[0])
    assert not np.any(np.asarray(found)[chain.layout.where("policy")])
    wanted, h = [], 1e-4
    for i in range(here.start, here.stop):
        costs = [
            windows(
                dataclasses.replace(learner, theta=method.course.planned(learner.theta.at[i].add(d), learner.memory))
            )[1]
            for d in (h, -h)
        ]
        wanted.append((costs[0] - costs[1]) / (2 * h))
    np.testing.assert_allclose(np.asarray(found)[here], wanted, rtol=2e-3)


def test_a_model_that_can_be_right_leads_to_the_best_gain(tmp_path):
    found = train(study(tmp_path), tmp_path / "out")
    gain = regulator_in(tmp_path / "out")
    a, b = linear_cart()
    p = scipy.linalg.solve_discrete_are(a, b, Q, [[R]])
    best = exact(CART, np.linalg.solve(b.T @ p @ b + R, b.T @ p @ a)[0])
    assert best == pytest.approx(p[0, 0], rel=1e-6)
    first = np.asarray(found.task.chain.plan.gain(jnp.array([6.0, 0.1]))[1])[0]
    assert exact(CART, first) > 1.15 * best
    assert exact(CART, gain) < 1.02 * best
    mass = found.summary["parameters"]["plan/body/cart/mass"]
    assert (mass["initial"], mass["unit"]) == (6.0, "kg")


def test_the_score_finds_the_best_gain_without_a_derivative_of_the_physics(tmp_path):
    more = {"method": "model_design_score", "environments": 32, "iterations": 60, "noise_end": 1.0, "critic_rate": 3e-3}
    found = train(study(tmp_path, training=more, policy={"noise": 0.3}), tmp_path / "out")
    a, b = linear_cart()
    best = scipy.linalg.solve_discrete_are(a, b, Q, [[R]])[0, 0]
    assert exact(CART, regulator_in(tmp_path / "out")) < 1.05 * best
    assert found.summary["engine"] == "mujoco"


def record(xml: str) -> Log:
    """Two runs of the cart under a force that changes at random, with noise of sensors."""
    spec = mujoco.MjSpec.from_string(xml)
    spec.add_sensor(name="place", type=mujoco.mjtSensor.mjSENS_JOINTPOS, objtype=mujoco.mjtObj.mjOBJ_JOINT, objname="x")
    mj, rng, runs = spec.compile(), np.random.default_rng(0), []
    for name in ("a", "b"):
        data, rows, ctrl = mujoco.MjData(mj), [], np.repeat(rng.normal(size=(12, 1)), 10, axis=0)
        for u in ctrl:
            data.ctrl[:] = u
            mujoco.mj_forward(mj, data)
            rows.append(data.sensordata.copy())
            mujoco.mj_step(mj, data)
        read = np.array(rows) + 0.002 * rng.normal(size=(len(ctrl), 1))
        names = {"ctrl_names": ("push",), "ctrl_units": ("N",), "sensor_names": ("place",), "sensor_units": ("m",)}
        runs.append(Rollout(name=name, time=DT * np.arange(len(ctrl)), ctrl=ctrl, sensordata=read, **names))
    return Log("", "simulated", "CC0", tuple(runs))


def test_where_the_model_lacks_a_lag_the_designed_numbers_cost_less_than_the_most_likely(tmp_path):
    """The best numbers are those of a search over the closed form; the likely ones those of `dso.identify`."""
    sensed = CART.replace("</mujoco>", '<sensor><jointpos name="place" joint="x"/></sensor></mujoco>')
    likely = dso.identify(
        mujoco.MjSpec.from_string(sensed), record(LATE), free=["body/cart/mass", "joint/x/damping"], progress=False
    )
    numbers = {name: max(likely.parameters[name]["value"], 1e-3) for name in ("body/cart/mass", "joint/x/damping")}
    free = [f"{name}={value}@0:30" for name, value in numbers.items()]
    tables = {"plan": {"free": free, "control_cost": {"push": EAGER}}, "training": {"horizon": 100, "gamma": 0.998}}
    asked = study(tmp_path, LATE, **tables, seconds=10.0)
    effort = {**asked.as_dict()["cost"]["effort"], "weight": EAGER}
    found = train(asked.changed({"cost": {**asked.as_dict()["cost"], "effort": effort}}), tmp_path / "out")

    def cost(gain):
        return exact(LATE, gain, EAGER)

    plan, start = found.task.chain.plan, np.log(list(numbers.values()))
    planned = jax.jit(lambda z: plan.gain(z)[1][0])
    best = scipy.optimize.minimize(
        lambda logs: min(cost(np.asarray(planned(jnp.exp(logs)))), 1e6), start, method="Nelder-Mead"
    )
    first, designed = np.asarray(planned(jnp.exp(start))), regulator_in(tmp_path / "out")
    assert cost(designed) < 0.5 * cost(first)
    assert cost(designed) < 1.1 * best.fun


def test_the_result_is_a_linear_policy_with_the_found_regulator(tmp_path):
    found = train(study(tmp_path, LATE, training={"iterations": 3}), tmp_path / "out")
    tree = read_run(tmp_path / "out" / "run.h5")[0]
    policy, plan = Policy.load(tmp_path / "out"), tree["plan"]
    for x, v in ((0.3, -0.2), (-1.0, 2.0)):
        wanted = plan["holds"] - plan["gain"] @ (np.array([x, v]) - [0.0, 0.0])
        np.testing.assert_allclose(policy.act(qpos=[x], qvel=[v], act=[0.7]), wanted, rtol=1e-9)
    numbers = {name.removeprefix("plan/"): row["value"] for name, row in found.summary["parameters"].items()}
    written = load(tmp_path / "out" / "plan.xml").mj
    assert written.body("cart").mass[0] == pytest.approx(numbers["body/cart/mass"], rel=1e-6)
    assert written.joint("x").damping[0] == pytest.approx(numbers["joint/x/damping"], rel=1e-6)
    # model.xml is the robot on which it was trained, and the policy knows no lag.
    assert load(tmp_path / "out" / "model.xml").mj.na == 1


def test_after_every_step_the_policy_is_that_of_the_numbers_and_of_the_scaling(tmp_path):
    task = build(study(tmp_path, LATE))
    method = method_of(task)
    learner = method.init(jax.random.key(0), jnp.asarray(task.chain.layout.initial))
    following, _ = method.step(learner)
    assert float(following.memory.count) > float(learner.memory.count)
    for state in (learner, following):
        np.testing.assert_allclose(method.course.planned(state.theta, state.memory), state.theta, rtol=1e-12)


def test_a_step_to_numbers_without_a_regulator_is_not_taken(tmp_path):
    task = build(study(tmp_path))
    method = method_of(task)
    learner = method.init(jax.random.key(0), jnp.asarray(task.chain.layout.initial))
    method.course = eqx.tree_at(lambda c: c.chain, method.course, task.chain)
    plain = method.course.planned

    class Lost(type(method.course)):
        def planned(self, theta, memory):
            near = jnp.abs(theta - learner.theta)[task.chain.layout.where("plan")].max() < 1e-9
            return jnp.where(near, plain(theta, memory), jnp.nan)

    fields = {field.name: getattr(method.course, field.name) for field in dataclasses.fields(method.course)}
    method.course = Lost(**fields)
    following, news = method.step(learner)
    assert not news.accepted
    np.testing.assert_array_equal(following.theta[task.chain.layout.where("plan")], learner.theta[-2:])
    assert int(following.lost) == 1


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"policy": {"kind": "network"}}, r'\[policy\] kind = "network" does not go with a \[plan\].*kind = "linear"'),
        ({"policy": {"time_features": 2}}, "does not see the time. Leave it out"),
        ({"policy": {"leave_out": ["x"]}}, "the policy does not see joint 'x'.*leave_out"),
        ({"policy": {"see_design": True}, "randomise": {"body/cart/mass": [0.5, 2.0]}}, "see_design does not go"),
        ({"task": {"goal": {"values": [0.0, 1.0]}}}, r"\[task.goal\] does not go"),
        ({"free": ["body/cart/mass"]}, r"free = body/cart/mass does not go.*`free` of \[plan\]"),
        ({"design": {"m": {"kind": "length", "of": "cart"}}}, r"\[design.m\] does not go"),
        ({"sensors": {"noise": {"*": 0.1}}, "estimator": {}}, r"\[estimator\] does not go"),
        ({"flow": {"policy": ["rollouts"]}}, r"\[flow\] does not go"),
        ({"init": "elsewhere"}, "init does not go.*PATH=VALUE"),
        ({"training": {"starts": 2}}, r"\[training\] starts does not go"),
        ({"training": {"method": "pathwise"}}, r"method = 'pathwise' trains the policy itself.*leave \[plan\] out"),
        ({"training": {"horizons": [2, 4]}}, "horizons changes nothing"),
        ({"plan": {"free": []}}, "free is empty, so there is nothing to find"),
        ({"plan": {"free": [{"path": "body/cart/mass", "prior": [1.0, 0.1]}]}}, "the prior of body/cart/mass"),
        ({"plan": {"free": ["joint/y/damping"]}}, r"\[plan\].*joint/y/damping"),
        ({"plan": {"free": ["actuator/push/delay"]}}, r"\[plan\].*delay"),
        ({"plan": {"keyframe": "up"}}, "keyframe: the model has no keyframe 'up'"),
        ({"plan": {"position": {"y": 0.0}}}, "position: y: .*has no joint called 'y'; it has 'x'"),
        ({"plan": {"position_cost": {"y": 1.0}}}, "position_cost: there is no joint 'y'; there are 'x'"),
        ({"plan": {"position_cost": {"x": 0.0}}}, "no regulator stabilises the model"),
        ({"plan": {"control_cost": {"x": 1.0}}}, "control_cost: there is no actuator 'x'; there are 'push'"),
        (
            {"control_step": 0.2, "seconds": 20.0, "plan": {"model": "slow.xml"}},
            "0.2 s is not a multiple of the planning",
        ),
        ({"plan": {"model": "late.xml"}}, "states of their own .dyntype.*take dyntype out"),
        ({"plan": {"model": "turning.xml"}}, "joint 'x' is a hinge joint, and in the study's model a slide joint"),
        (
            {"plan": {"model": "renamed.xml", "free": ["body/cart/mass"]}},
            "the study's model has no joint 'z'; it has 'x'",
        ),
        ({"plan": {"model": "other.xml"}}, "has the actuators pull, and the study's model push"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(tmp_path, tables, said):
    files = {
        "slow": CART.replace("0.05", "0.15", 1),
        "late": LATE,
        "turning": CART.replace('type="slide"', 'type="hinge"'),
        "renamed": CART.replace('"x"', '"z"'),
        "other": CART.replace('"push"', '"pull"'),
    }
    for name, text in files.items():
        (tmp_path / f"{name}.xml").write_text(text)
    given = {name: dict(table) if isinstance(table, dict) else table for name, table in tables.items()}
    if "model" in given.get("plan", {}):
        given["plan"]["model"] = str(tmp_path / given["plan"]["model"])
    with pytest.raises(DsoError, match=said):
        build(study(tmp_path, CART, **given))


def test_without_a_plan_the_method_says_what_to_add(tmp_path):
    asked = study(tmp_path)
    with pytest.raises(DsoError, match=r"add a \[plan\] table with `model` and `free`"):
        build(
            dataclasses.replace(asked, plan=None, training=dataclasses.replace(asked.training, method="model_design"))
        )


def test_auto_is_model_design_where_there_is_a_plan_and_a_drawn_robot_is_allowed(tmp_path):
    asked = study(
        tmp_path, LATE, training={"method": "auto", "iterations": 2}, randomise={"body/cart/mass": [0.8, 1.2]}
    )
    found = train(asked, tmp_path / "out")
    assert found.summary["method"]["name"] == "model_design"
    assert found.summary["engine"] == "mujoco"
    assert set(found.summary["flow"]) == {"policy", "plan"}
