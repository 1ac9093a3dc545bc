"""Optimal Model Design against maximum likelihood on CartPole with a model that is too small, or with distracting observations.

Run: python benchmarks/companions_cartpole.py [--steps 200000] [--out benchmarks/results] It writes
companions_cartpole.json after every cell, so that a run that was stopped goes on, and companions_cartpole.png.

Nikishin et al. 2022, sections 6 and 7: double Q-learning on the transitions of a learned model, with dynamics and
rewards of two hidden layers each. The model is moved by likelihood (squared errors), or by the Bellman error that Q has
on the true transitions, through the first-order condition of Q's loss with the identity in the place of its Hessian's
inverse. Hidden sizes 1, 3, 12, and 12 with 16 observations of pure noise; three seeds. The cart-pole is Gymnasium's
CartPole-v1, in JAX. Returns are at most 500. Their sweeps of step sizes are left out: 1e-3 for the model and for Q, and
0.01 for the slow copy of Q.
"""

import argparse
import dataclasses
import json
import pathlib
import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import optax
from provenance import begun

from dso_robotics.core.descent import Status, descend
from dso_robotics.core.implicit import Identity, implied

mpl.use("Agg")
import matplotlib.pyplot as plt

GAMMA, TEMPERATURE, RATE, SLOW, BATCH, EXPLORE, FIRST = 0.99, 0.01, 1e-3, 0.01, 256, 0.1, 1000
CHUNK, SEEDS, EPISODES = 2000, 3, 10
CELLS = [
    (hidden, noise, kind)
    for hidden, noise in ((1, 0), (3, 0), (12, 0), (12, 16))
    for kind in ("designed", "likelihood")
]
ADAM = optax.adam(RATE)


def cart_step(state, action):
    """Gymnasium's CartPole-v1: the next state and whether it ends there."""
    x, v, angle, w = state
    force = jnp.where(action == 1, 10.0, -10.0)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    push = (force + 0.05 * w**2 * sin) / 1.1
    turn = (9.8 * sin - cos * push) / (0.5 * (4.0 / 3.0 - 0.1 * cos**2 / 1.1))
    following = jnp.stack(
        [x + 0.02 * v, v + 0.02 * (push - 0.05 * turn * cos / 1.1), angle + 0.02 * w, w + 0.02 * turn]
    )
    return following, (jnp.abs(following[0]) > 2.4) | (jnp.abs(following[2]) > 12.0 * 2.0 * jnp.pi / 360.0)


def fresh(key):
    return jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05)


class Net(eqx.Module):
    """Two hidden layers of rectified units; orthogonal start."""

    layers: list

    def __init__(self, key, size, hidden, out):
        keys, sizes = jax.random.split(key, 3), (size, hidden, hidden, out)
        scales = (2.0**0.5, 2.0**0.5, 1e-2)
        self.layers = [
            (jax.nn.initializers.orthogonal(scale)(k, (b, a)), jnp.zeros(b))
            for k, a, b, scale in zip(keys, sizes[:-1], sizes[1:], scales, strict=True)
        ]

    def __call__(self, x):
        for weight, bias in self.layers[:-1]:
            x = jax.nn.relu(x @ weight.T + bias)
        return x @ self.layers[-1][0].T + self.layers[-1][1]


class Buffer(eqx.Module):
    """Transitions seen: observation, action, reward, next observation, 1 where something follows."""

    rows: Any
    count: Any


@dataclasses.dataclass(frozen=True)
class State:
    """One agent. theta: the model (dynamics, reward). q, slow: two Q-networks and their slow copies."""

    theta: Any
    q: Any
    slow: Any
    model_opt: Any
    q_opt: Any
    buffer: Buffer
    cart: Any
    age: Any
    key: Any


jax.tree_util.register_dataclass(State, [f.name for f in dataclasses.fields(State)], [])


def q_loss(q, slow, obs, action, reward, ahead, goes):
    """Squared soft Bellman error of both networks, with the smaller of the slow ones as target."""
    target = jnp.minimum(slow[0](ahead), slow[1](ahead))
    value = reward + goes * GAMMA * TEMPERATURE * jax.nn.logsumexp(target / TEMPERATURE, axis=-1)
    value = value if value.ndim == 1 else value[:, 0]
    chosen = [jnp.take_along_axis(net(obs), action[:, None], axis=1)[:, 0] for net in q]
    return 0.5 * sum(jnp.mean((each - value) ** 2) for each in chosen)


def imagined(theta, obs, action):
    """Next observation and reward of the model."""
    inputs = jnp.concatenate([obs, jax.nn.one_hot(action, 2)], axis=1)
    return theta[0](inputs), theta[1](inputs)[:, 0]


class Agent:
    """A method of the one loop: one step is CHUNK moves of all seeds, each with one update of Q and one of the model."""

    def __init__(self, hidden, noise, kind, steps):
        self.hidden, self.noise, self.kind, self.steps = hidden, noise, kind, steps
        self._chunk = jax.jit(jax.vmap(self._run))
        self._judge = jax.jit(jax.vmap(self._returns))

    def init(self, key, theta=None):
        return jax.vmap(self._init)(jax.random.split(key, SEEDS))

    def _init(self, key):
        keys, size = jax.random.split(key, 6), 4 + self.noise
        theta = Net(keys[0], size + 2, self.hidden, size), Net(keys[1], size + 2, self.hidden, 1)
        q = Net(keys[2], size, 32, 2), Net(keys[3], size, 32, 2)
        rows = (jnp.zeros((self.steps, size)), jnp.zeros(self.steps, int), jnp.zeros(self.steps))
        rows = (*rows, jnp.zeros((self.steps, size)), jnp.zeros(self.steps))
        buffer = Buffer(rows, jnp.zeros((), int))
        return State(theta, q, q, ADAM.init(theta), ADAM.init(q), buffer, fresh(keys[4]), jnp.zeros((), int), keys[5])

    def observed(self, key, cart):
        return jnp.concatenate([cart, jax.random.normal(key, (self.noise,))])

    def act(self, key, q, obs):
        return jax.random.categorical(key, 0.5 * (q[0](obs) + q[1](obs)) / TEMPERATURE)

    def _move(self, state, _):
        keys = jax.random.split(state.key, 8)
        obs = self.observed(keys[0], state.cart)
        random = jax.random.bernoulli(keys[1], EXPLORE) | (state.buffer.count < FIRST)
        action = jnp.where(random, jax.random.randint(keys[2], (), 0, 2), self.act(keys[3], state.q, obs))
        cart, fell = cart_step(state.cart, action)
        late = state.age + 1 >= 500
        row = (obs, action, jnp.ones(()), self.observed(keys[4], cart), 1.0 - fell.astype(float) * ~late)
        at = state.buffer.count
        rows = jax.tree.map(lambda all_, one: all_.at[at].set(one), state.buffer.rows, row)
        again = fell | late
        state = dataclasses.replace(
            state,
            buffer=Buffer(rows, at + 1),
            cart=jnp.where(again, fresh(keys[5]), cart),
            age=jnp.where(again, 0, state.age + 1),
            key=keys[6],
        )
        index = jax.random.randint(keys[7], (BATCH,), 0, jnp.maximum(state.buffer.count, 1))
        batch = jax.tree.map(lambda all_: all_[index], rows)
        learned = self._update(state, batch)
        early = state.buffer.count < FIRST
        return _pick(early, state, learned), None

    def _update(self, state, batch):
        obs, action, reward, ahead, goes = batch

        def slope(q, theta):
            dreamt, paid = imagined(theta, obs, action)
            return jax.grad(q_loss)(q, state.slow, obs, action, paid, dreamt, goes)

        # The published code starts Adam anew for every outer step when it designs, and keeps its state when it fits.
        q_opt = ADAM.init(state.q) if self.kind == "designed" else state.q_opt

        def moved(theta):
            change, q_opt_next = ADAM.update(slope(state.q, theta), q_opt)
            return optax.apply_updates(state.q, change), q_opt_next

        if self.kind == "designed":
            found, q_next_opt = jax.lax.stop_gradient(moved(state.theta))

            def outer(theta):
                q = implied(slope, found, theta, inverse=Identity())
                return q_loss(q, slow, obs, action, reward, ahead, goes)

            slow = _mixed(state.slow, found)
            change, model_opt = ADAM.update(jax.grad(outer)(state.theta), state.model_opt)
            theta = optax.apply_updates(state.theta, change)
        else:

            def error(theta):
                dreamt, paid = imagined(theta, obs, action)
                return jnp.mean(jnp.sum((dreamt - ahead) ** 2, axis=1)) + jnp.mean((paid - reward) ** 2)

            change, model_opt = ADAM.update(jax.grad(error)(state.theta), state.model_opt)
            theta = optax.apply_updates(state.theta, change)
            found, q_next_opt = moved(theta)
            slow = _mixed(state.slow, found)
        return dataclasses.replace(state, theta=theta, q=found, slow=slow, model_opt=model_opt, q_opt=q_next_opt)

    def _run(self, state):
        return jax.lax.scan(self._move, state, None, length=CHUNK)[0]

    def step(self, state):
        state = self._chunk(state)
        keys = jax.vmap(lambda key: jax.random.fold_in(key, 1))(state.key)
        return state, np.asarray(self._judge(keys, state.q)).tolist()

    def _returns(self, key, q):
        def episode(key):
            first, key = jax.random.split(key)

            def move(carry, key):
                cart, alive, total = carry
                a, b = jax.random.split(key)
                following, fell = cart_step(cart, self.act(a, q, self.observed(b, cart)))
                return (following, alive & ~fell, total + alive), None

            start = (fresh(first), jnp.ones((), bool), jnp.zeros(()))
            return jax.lax.scan(move, start, jax.random.split(key, 500))[0][2]

        return jnp.mean(jax.vmap(episode)(jax.random.split(key, EPISODES)))

    def done(self, state, record):
        return None

    def message(self, state, status: Status, steps):
        return status.value


def _mixed(slow, q):
    return jax.tree.map(lambda old, new: old + SLOW * (new - old), slow, q)


def _pick(early, state, learned):
    """The learned state, or the old one before learning begins; the buffer is the same in both."""
    small = {name: getattr(state, name) for name in ("theta", "q", "slow", "model_opt", "q_opt")}
    kept = {
        name: jax.tree.map(lambda a, b: jnp.where(early, a, b), old, getattr(learned, name))
        for name, old in small.items()
    }
    return dataclasses.replace(learned, **kept)


def draw(results, path):
    fig, axes = plt.subplots(1, 4, figsize=(14, 3.5), sharey=True, layout="constrained")
    for ax, (hidden, noise) in zip(axes, dict.fromkeys(cell[:2] for cell in CELLS), strict=True):
        for kind, colour in (("designed", "tab:red"), ("likelihood", "tab:blue")):
            curve = np.array(results.get(f"{hidden} {noise} {kind}", {}).get("returns", []))
            if curve.size:
                at = CHUNK * (1 + np.arange(len(curve))) / 1000
                ax.plot(at, curve.mean(1), color=colour, label=kind)
                ax.fill_between(at, curve.min(1), curve.max(1), color=colour, alpha=0.15)
        ax.set(title=f"hidden size {hidden}" + (f", {noise} distractors" if noise else ""), xlabel="thousand steps")
    axes[0].set_ylabel("return (mean and range of 3 seeds)")
    axes[0].legend()
    fig.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent / "results")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "companions_cartpole.json"
    results = begun(path)
    for hidden, noise, kind in CELLS:
        name = f"{hidden} {noise} {kind}"
        if results.get(name, {}).get("steps") == args.steps:
            continue
        agent, start = Agent(hidden, noise, kind, args.steps), time.perf_counter()

        def watch(moment, name=name, start=start):
            if moment.iteration % 10 == 0:
                seconds = time.perf_counter() - start
                print(
                    f"{name}: {moment.iteration * CHUNK} steps, {np.mean(moment.record):.0f}, {seconds:.0f} s",
                    flush=True,
                )

        done = descend(agent, agent.init(jax.random.key(0)), iterations=args.steps // CHUNK, watch=watch)
        results[name] = {
            "steps": args.steps,
            "seconds": round(time.perf_counter() - start),
            "returns": list(done.history),
        }
        path.write_text(json.dumps(results, indent=1) + "\n")
    draw(results, path.with_suffix(".png"))


if __name__ == "__main__":
    main()
