"""A study as a Gymnasium environment: it passes Gymnasium's own checker, and its episodes cost what `dso train` judges."""

import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import dso_robotics as dso
from dso_robotics.robot.play import Player
from tests.studies.train_robots import write

LIMITED = '<motor name="push" joint="x" gear="2" ctrlrange="-0.5 1"/>'
READ = '<sensor><jointpos name="p" joint="x"/><jointvel name="v" joint="x"/></sensor></mujoco>'
SENSORS = '[sensors]\nnoise = { "*" = 0.02 }'
DRAWN = """
[task.place]
low = 0.5
high = 1.5
[randomise]
"body/cart/mass" = [0.5, 2.0]
"""


def study(folder, more="", policy="", ends=""):
    path = write(folder, more=more)
    text = path.read_text().replace('kind = "linear"', f'kind = "network"\nhidden = [8]\n{policy}') + ends
    path.write_text(text.replace("[start]", "[start]\nspread = 0.1"))
    model = folder / "cart.xml"
    model.write_text(model.read_text().replace('<motor name="push" joint="x" gear="2"/>', LIMITED))
    return path


def played(env, policy, seed):
    """Rewards of an episode under the deployed policy, and its last flags."""
    _, numbers = env.reset(seed=seed)
    policy.reset({name: value for name, value in numbers.items() if name.startswith("task/")})
    rewards, over = [], False
    while not over:
        _, reward, terminated, truncated, info = env.step(policy.act(env.unwrapped.data))
        assert sum(info["cost"].values()) == pytest.approx(-reward, abs=1e-12)
        rewards.append(reward)
        over = terminated or truncated
    return rewards, terminated, truncated


def test_gymnasium_finds_no_fault(tmp_path):
    env = gymnasium.make(dso.Environment.register(study(tmp_path), "cart-of-a-test"))
    assert env.spec.id == "dso/cart-of-a-test"
    check_env(env.unwrapped, skip_render_check=True)
    np.testing.assert_array_equal(env.action_space.low, [-0.5])
    np.testing.assert_array_equal(env.action_space.high, [1.0])
    assert env.unwrapped.metadata["render_fps"] == 20


def test_a_plugin_of_gymnasium_takes_any_study(tmp_path):
    from dso_robotics.public.environment_id import register

    if "dso/Study-v0" not in gymnasium.registry:
        with gymnasium.envs.registration.namespace("dso"):
            register()
    env = gymnasium.make("dso/Study-v0", study=study(tmp_path))
    assert env.reset(seed=0)[0].shape == (2,)


def test_an_episode_of_the_trained_policy_costs_what_is_judged(tmp_path):
    path = study(tmp_path)
    found = dso.train(path, training={"iterations": 1})
    env = dso.Environment(path)
    for seed, judged in enumerate(found.summary["episodes"]["cost"]):
        rewards, terminated, truncated = played(env, found.policy, seed)
        assert (terminated, truncated, len(rewards)) == (False, True, 40)
        assert -sum(rewards) == pytest.approx(judged, abs=1e-9)


@pytest.mark.parametrize("late", [True, False], ids=["delay and time", "noisy readings"])
def test_an_episode_of_a_policy_that_sees_the_observation_costs_what_is_judged(tmp_path, late):
    path = study(tmp_path, "" if late else SENSORS, "delay = 0.1\ntime_features = 2" if late else "")
    model = tmp_path / "cart.xml"
    model.write_text(model.read_text().replace("</mujoco>", READ))
    env = dso.Environment(path)
    chain = env.task.chain
    theta = env.theta + np.random.default_rng(0).normal(size=env.theta.size)
    judged, policy = Player(chain), chain.policy.base if late else chain.policy
    for seed in range(2):
        seen, _ = env.reset(seed=seed)
        total, over = 0.0, False
        while not over:
            action, _ = policy(chain.layout.split(theta)["policy"], seen, np.zeros(0), 0.0)
            seen, reward, _, over, _ = env.step(chain.squash(action))
            total -= reward
        assert total == pytest.approx(judged.play(theta, chain.scaling, steps=40, seed=seed).cost, abs=1e-9)


def test_drawn_numbers_are_in_force_and_may_be_given(tmp_path):
    env = dso.Environment(study(tmp_path, DRAWN))
    chain = env.task.chain
    for seed in (3, 4):
        seen, numbers = env.reset(seed=seed)
        assert list(numbers) == ["task/place", "body/cart/mass"]
        assert env._running.model.body("cart").mass[0] == pytest.approx(numbers["body/cart/mass"], rel=1e-12)
        assert seen[2] == pytest.approx(chain.context.normalised(np.array([*numbers.values()]))[0])
    given = np.array([0.7, 1.9])
    _, numbers = env.reset(seed=0, options={"context": given})
    np.testing.assert_allclose([*numbers.values()], given)
    assert env._running.model.body("cart").mass[0] == pytest.approx(1.9)
    with pytest.raises(dso.DsoError, match="expected 2 numbers"):
        env.reset(options={"context": [1.0]})


def test_a_broken_bound_terminates_and_costs(tmp_path):
    env = dso.Environment(
        study(tmp_path, ends='[terminate.far]\nquantity = "joint/x/position"\nhigh = 1.5\ncost = 7\n')
    )
    env.reset(seed=1)
    rewards, terminated = [], False
    while not terminated:
        seen, reward, terminated, truncated, info = env.step([1.0])
        assert not truncated
        rewards.append(reward)
    assert seen[0] > 1.5
    assert info["cost"]["terminate/far"] == 7.0
    assert rewards[-1] < -7.0 < min(rewards[:-1])


def test_a_diverged_simulation_truncates_at_the_last_sound_state(tmp_path):
    path = study(tmp_path)
    model = tmp_path / "cart.xml"
    model.write_text(model.read_text().replace('damping="0.1"', 'damping="0.1" stiffness="1e9"'))
    env = dso.Environment(path)
    env.reset(seed=0)
    seen = []
    over = False
    while not over:
        now, reward, terminated, over, info = env.step([0.0])
        seen.append(now)
    assert info["diverged"]
    assert not terminated
    assert np.isfinite(now).all()
    assert np.isfinite(reward)
    np.testing.assert_array_equal(seen[-1], seen[-2])


def test_what_cannot_be_is_told(tmp_path):
    path = study(tmp_path)
    with pytest.raises(dso.DsoError, match="no such study file"):
        dso.Environment.register(tmp_path / "none.toml")
    with pytest.raises(dso.DsoError, match="letters, digits"):
        dso.Environment.register(path, "a b")
    env = dso.Environment(path)
    with pytest.raises(dso.DsoError, match=r"call reset\(\) first"):
        env.step([0.0])
    env.reset(seed=0)
    with pytest.raises(dso.DsoError, match="expected 1 finite controls"):
        env.step([np.nan])
    with pytest.raises(dso.DsoError, match="rgb_array"):
        dso.Environment(path, render_mode="human")


def test_without_gymnasium_the_cure_is_told():
    code = (
        "import sys; sys.modules['gymnasium'] = None\n"
        "import dso_robotics as dso\ntry:\n    dso.Environment\nexcept dso.DsoError as error:\n    print(error)"
    )
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert "dso.Environment needs the package gymnasium" in said
    assert "pip install 'dso-robotics[gymnasium]'" in said


def test_a_cost_of_the_policy_itself_is_refused(tmp_path):
    """An environment has no policy of its own: the reward would be that of a policy which does not act."""
    with pytest.raises(dso.DsoError, match=r"cost\.sure is of the policy itself"):
        dso.Environment(study(tmp_path, more='[cost.sure]\nkind = "entropy"'))
