"""One training of the cart-pole swing-up by Brax's PPO, SAC or APG, in its own Python environment; prints JSON.

Run: make bench-brax, then python benchmarks/policy.py --tool brax-ppo-small ..., which starts this file with
.venv-brax/bin/python. It does not import dso_robotics, because Brax 0.14.2 needs an older JAX. The physics is mjx.step of
models/cartpole.xml. Reward, observation and start states are those of examples/studies/cartpole_swing_up.toml. The policy is
evaluated on C MuJoCo, without noise.
"""

import argparse
import functools
import json
import os
import pathlib
import sys
import time

BEGAN = time.perf_counter()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import mujoco  # noqa: E402
import numpy as np  # noqa: E402
from brax.envs.base import Env, State, Wrapper  # noqa: E402
from brax.envs.wrappers import training as wrappers  # noqa: E402
from brax.training import acting  # noqa: E402
from mujoco import mjx  # noqa: E402

# Brax 0.14.2 calls this function, which JAX 0.11 no longer has. For one device it adds an axis of length one.
if getattr(jax, "device_put_replicated", None) is None:
    jax.device_put_replicated = lambda tree, devices: jax.tree.map(lambda x: jnp.stack([x] * len(devices)), tree)

MODEL = pathlib.Path(__file__).parent.parent / "models" / "cartpole.xml"
STEPS = 1000
# [explore] of the study and the share of new starts that come from it; and the mean number of control steps between new starts:
# a tenth of the windows of 32 steps start anew.
WIDE_POSITION, WIDE_VELOCITY, WIDE = np.array([[-1.5, 0.0], [1.5, 2 * np.pi]]), np.array([2.0, 6.0]), 0.7
BETWEEN = 320
SETTINGS = {
    # MuJoCo Playground, config/dm_control_suite_params.py, CartpoleSwingup.
    "ppo": {
        "num_envs": 2048,
        "batch_size": 1024,
        "num_minibatches": 32,
        "num_updates_per_batch": 16,
        "unroll_length": 30,
        "discounting": 0.995,
        "learning_rate": 1e-3,
        "entropy_cost": 1e-2,
        "reward_scaling": 10.0,
        "normalize_observations": True,
    },
    # The same file.
    "sac": {
        "num_envs": 128,
        "batch_size": 512,
        "grad_updates_per_step": 8,
        "min_replay_size": 8192,
        "max_replay_size": 1048576,
        "discounting": 0.99,
        "learning_rate": 1e-3,
        "reward_scaling": 1.0,
        "normalize_observations": True,
    },
    # MuJoCo's mjx/training_apg.ipynb, whose robot is a quadruped; nothing is published for a cart-pole.
    "apg": {
        "num_envs": 64,
        "horizon_length": 32,
        "learning_rate": 1e-4,
        "normalize_observations": True,
        "use_float64": True,
    },
}
# Published settings first; "small" makes PPO small enough for two cores (also its critic, by default 5 layers of 256 units, is
# then 3 of 64), "fast" takes environments and rate of dso for APG.
VARIANTS = {
    "ppo": {},
    "ppo-small": {"num_envs": 256, "batch_size": 64, "num_minibatches": 8, "num_updates_per_batch": 8},
    "sac": {},
    "apg": {},
    "apg-fast": {"num_envs": 32, "learning_rate": 5e-3},
}


class SwingUp(Env):
    """Plain Brax environment with mjx.step. The state kept between steps is qpos, qvel and the solver's warm start."""

    def __init__(self, wide: bool, differentiable: bool = False):
        self.mj = mujoco.MjModel.from_xml_path(str(MODEL))
        if differentiable:
            # MJX's solver is a loop that reverse mode refuses, but for one iteration; it works at the rail's ends only.
            self.mj.opt.iterations = 1
        self.mjx, self.wide = mjx.put_model(self.mj), wide

    def reset(self, rng: jax.Array) -> State:
        one, two, three, four, five = jax.random.split(rng, 5)
        qpos = jnp.array([0.0, jnp.pi]) + 0.01 * jax.random.normal(one, (2,))
        qvel = 0.01 * jax.random.normal(two, (2,))
        if self.wide:
            low, high = jnp.asarray(WIDE_POSITION)
            wide = jax.random.bernoulli(three, WIDE)
            qpos = jnp.where(wide, jax.random.uniform(four, (2,), minval=low, maxval=high), qpos)
            spin = jnp.asarray(WIDE_VELOCITY)
            qvel = jnp.where(wide, jax.random.uniform(five, (2,), minval=-spin, maxval=spin), qvel)
        body = {"qpos": qpos, "qvel": qvel, "warm": jnp.zeros(2)}
        zero = jnp.zeros(())
        return State(body, observe(qpos, qvel, jnp), zero, zero, {}, {"again": jax.random.split(rng)[0]})

    def step(self, state: State, action: jax.Array) -> State:
        ctrl, body = jnp.clip(action, -1.0, 1.0), state.pipeline_state
        data = mjx.make_data(self.mj).replace(qpos=body["qpos"], qvel=body["qvel"], ctrl=ctrl)
        data = mjx.step(self.mjx, data.replace(qacc_warmstart=body["warm"]))
        body = {"qpos": data.qpos, "qvel": data.qvel, "warm": data.qacc_warmstart}
        return state.replace(
            pipeline_state=body,
            obs=observe(data.qpos, data.qvel, jnp),
            reward=reward(data.qpos, data.qvel, ctrl[0], jnp),
        )

    @property
    def observation_size(self) -> int:
        return 5

    @property
    def action_size(self) -> int:
        return 1

    @property
    def backend(self) -> str:
        return "mjx"


class Anew(Wrapper):
    """Draws a new start state after an episode. Brax's own wrapper always returns an environment to its first start state."""

    def step(self, state: State, action: jax.Array) -> State:
        state = self.env.step(state.replace(done=jnp.zeros_like(state.done)), action)
        fresh = jax.vmap(self.env.unwrapped.reset)(state.info["again"])
        done = state.done.astype(bool)

        def choose(new: jax.Array, old: jax.Array) -> jax.Array:
            return jnp.where(done.reshape((-1,) + (1,) * (old.ndim - 1)), new, old)

        body = jax.tree.map(choose, fresh.pipeline_state, state.pipeline_state)
        info = state.info | {
            "again": choose(fresh.info["again"], state.info["again"]),
            "steps": jnp.where(done, 0.0, state.info["steps"]),
        }
        return state.replace(pipeline_state=body, obs=choose(fresh.obs, state.obs), info=info)


def wrap_wide(env: Env, episode_length: int = BETWEEN, action_repeat: int = 1, randomization_fn: object = None) -> Env:
    """Brax's wrappers with Anew instead of its automatic reset."""
    return Anew(wrappers.EpisodeWrapper(wrappers.VmapWrapper(env), episode_length, action_repeat))


def observe(qpos, qvel, xp):
    """The study's observation: cart, sine and cosine of the pole's angle, velocities."""
    return xp.stack([qpos[0], xp.sin(qpos[1]), xp.cos(qpos[1]), qvel[0], qvel[1]])


def reward(qpos, qvel, ctrl, xp):
    """1 less the study's cost of a step: the control suite's reward, at the state reached with `ctrl`."""
    scale = xp.log(0.1)
    centred, slow = xp.exp(scale * (qpos[0] / 2) ** 2), xp.exp(scale * (qvel[1] / 5) ** 2)
    return (1 + xp.cos(qpos[1])) / 2 * (4 + 1 - ctrl**2) / 5 * (1 + centred) / 2 * (1 + slow) / 2


class Enough(Exception):
    """Whether the episode is over."""


class Judge:
    """Replaces Brax's evaluator: one episode without noise from the hanging start on C MuJoCo."""

    latest = None

    def __init__(self, eval_env, eval_policy_fn, num_eval_envs, episode_length, action_repeat, key):
        self.model = mujoco.MjModel.from_xml_path(str(MODEL))
        self.act = jax.jit(lambda params, seen: eval_policy_fn(params)(seen, jax.random.PRNGKey(0))[0])
        Judge.latest = self

    def run_evaluation(self, policy_params, training_metrics, aggregate_episodes=True):
        self.params = jax.device_get(policy_params)
        return {"return": self.play(0)}

    def play(self, seed: int) -> float:
        """Return of 1000 steps. The start state is another draw than in dso's evaluation, from the same distribution."""
        rng, data, total = np.random.default_rng(seed), mujoco.MjData(self.model), 0.0
        data.qpos[:] = [0.0, np.pi] + 0.01 * rng.standard_normal(2)
        data.qvel[:] = 0.01 * rng.standard_normal(2)
        for _ in range(STEPS):
            seen = observe(data.qpos, data.qvel, np)
            data.ctrl[:] = np.clip(np.asarray(self.act(self.params, seen)), -1, 1)
            mujoco.mj_step(self.model, data)
            total += float(reward(data.qpos, data.qvel, data.ctrl[0], np))
        return total


def run(tool: str, seed: int, wide: bool, steps: int, looks: int, cap: float) -> dict:
    """One training of `steps` environment steps with `looks` evaluations; it stops after `cap` seconds."""
    method = tool.split("-")[0]
    given = SETTINGS[method] | VARIANTS[tool]
    if method == "apg":
        jax.config.update("jax_enable_x64", True)
    acting.Evaluator = Judge
    env, rows, compiled = SwingUp(wide, method == "apg"), [], []
    common = {
        "episode_length": BETWEEN if wide else STEPS,
        "seed": seed,
        "num_evals": looks + 1,
        "eval_env": SwingUp(False),
        "deterministic_eval": True,
        "wrap_env_fn": wrap_wide if wide else None,
    }

    def progress(step, metrics):
        step = int(step)
        if method == "apg":
            window = given["num_envs"] * given["horizon_length"]
            step *= round(round(steps / window) / looks) * window
        now = time.perf_counter() - BEGAN
        rows.append((step, metrics["return"], now))
        print(
            f"{tool} seed {seed}: {step} steps, return {metrics['return']:.0f}, {now:.0f} s",
            file=sys.stderr,
            flush=True,
        )
        if now > cap:
            raise Enough

    def listen(name: str, seconds: float, **_: object) -> None:
        if name.endswith("compile_duration"):
            compiled.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        if method == "ppo":
            from brax.training.agents.ppo import networks
            from brax.training.agents.ppo import train as ppo

            factory = networks.make_ppo_networks
            if tool == "ppo-small":
                factory = functools.partial(factory, value_hidden_layer_sizes=(64, 64, 64))
            ppo.train(env, num_timesteps=steps, progress_fn=progress, network_factory=factory, **common, **given)
        elif method == "sac":
            from brax.training.agents.sac import networks
            from brax.training.agents.sac import train as sac

            factory = functools.partial(networks.make_sac_networks, q_network_layer_norm=True)
            sac.train(env, num_timesteps=steps, progress_fn=progress, network_factory=factory, **common, **given)
        else:
            from brax.training.agents.apg import networks
            from brax.training.agents.apg import train as apg

            factory = functools.partial(networks.make_apg_networks, hidden_layer_sizes=(256, 128))
            updates = round(steps / (given["num_envs"] * given["horizon_length"]))
            apg.train(env, policy_updates=updates, progress_fn=progress, network_factory=factory, **common, **given)
        ended = "steps"
    except Enough:
        ended = "time"
    total = time.perf_counter() - BEGAN
    taken, returns, seconds = (list(column) for column in zip(*rows, strict=True))
    return {
        "seed": seed,
        "steps": taken,
        "return": returns,
        "seconds": seconds,
        "final": [Judge.latest.play(k) for k in range(3)],
        "compile": sum(compiled),
        "total": total,
        "training_steps": taken[-1],
        "ended": ended,
        "cores": len(os.sched_getaffinity(0)),
        "settings": given,
        "versions": versions(),
    }


def versions() -> dict:
    from importlib.metadata import version

    return {name: version(name) for name in ("brax", "jax", "mujoco", "mujoco-mjx", "flax", "optax")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tool", choices=list(VARIANTS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--wide", action="store_true")
    parser.add_argument("--steps", type=int, default=2_700_000)
    parser.add_argument("--looks", type=int, default=20)
    parser.add_argument("--cap", type=float, default=300.0)
    args = parser.parse_args()
    print(json.dumps(run(args.tool, args.seed, args.wide, args.steps, args.looks, args.cap)))


if __name__ == "__main__":
    main()
