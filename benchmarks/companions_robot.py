"""A robot's model of the wrong structure, identified by likelihood or by the control cost that it leads to.

Run: python benchmarks/companions_robot.py [cartpole] [arm] [bumpers] [--seeds 10] [--out benchmarks/results]
It writes companions_robot.json after every cell, so that a run that was stopped goes on, and companions_robot.png.

The real robot has what the model has not: motors that answer late (a lag, the axis of the figure), dry friction, and a bend,
in the pole of the cart-pole and between motor and link of the arm's elbow. The third robot is a task of contact: a cart-pole
between two bumpers (the axis is how far they are away) of which the model knows nothing. The controller is the linear-quadratic
regulator of the model about the upright posture, with fixed weights. Four gains: of the model as drawn, of the one
identified by `dso.identify` from a log of the real robot hanging down, of the designed model (projected Adam on the cost that
the regulator has on the real robot; its gradient goes through the Riccati equation), and, as a bound, the gain itself moved
by that cost. The cost is judged on starts that no method has seen.
"""

import argparse
import copy
import itertools
import json
import pathlib
import time

import jax
import jax.numpy as jnp
import matplotlib as mpl
import mujoco
import numpy as np
import optax
from provenance import begun

import dso_robotics as dso
from dso_robotics.core.descent import Best
from dso_robotics.core.differences import measured
from dso_robotics.core.implicit import Dense
from dso_robotics.core.method.first_order import FirstOrder
from dso_robotics.core.method.sampled import Stopping, minimise
from dso_robotics.core.regulator import regulator
from dso_robotics.core.sampler import ExactSampler
from dso_robotics.data.log import Log
from dso_robotics.data.rollout import Rollout

mpl.use("Agg")
import matplotlib.pyplot as plt

CARTPOLE = """
<mujoco model="cartpole">
  <option timestep="0.005" integrator="implicitfast"><flag contact="{contact}"/></option>
  <worldbody>{walls}
    <body name="cart">
      <joint name="slider" type="slide" axis="1 0 0" damping="0.1" {cart}/>
      <geom name="cart" type="box" size="0.2 0.15 0.1" mass="1"/>
      <body name="pole">
        <joint name="hinge" axis="0 1 0" damping="0.002"/>
        {pole}
      </body>
    </body>
  </worldbody>
  <actuator><general name="drive" joint="slider" gear="10" ctrllimited="true" ctrlrange="-1 1" {lag}/></actuator>
  <sensor>
    <jointpos name="x" joint="slider"/><jointpos name="angle" joint="hinge"/>
    <jointvel name="v" joint="slider"/><jointvel name="turn" joint="hinge"/>
  </sensor>
</mujoco>
"""
ARM = """
<mujoco model="arm">
  <option timestep="0.005" integrator="implicitfast"><flag contact="disable"/></option>
  <worldbody>
    <body name="upper">
      <joint name="shoulder" axis="0 1 0" damping="0.05" armature="0.003" {shoulder}/>
      <geom type="capsule" size="0.02" fromto="0 0 0 0 0 0.3" mass="0.6"/>
      <body name="{motor}" pos="0 0 0.3">
        <joint name="elbow" axis="0 1 0" damping="0.05" armature="0.02"/>
        {lower}
      </body>
    </body>
  </worldbody>
  <actuator>
    <general name="m1" joint="shoulder" ctrllimited="true" ctrlrange="-4 4" {lag}/>
    <general name="m2" joint="elbow" ctrllimited="true" ctrlrange="-2 2" {lag}/>
  </actuator>
  <sensor>
    <jointpos name="q1" joint="shoulder"/><jointpos name="q2" joint="elbow"/>
    <jointvel name="v1" joint="shoulder"/><jointvel name="v2" joint="elbow"/>
  </sensor>
</mujoco>
"""
ROD = '<geom name="{name}" type="capsule" size="0.03" fromto="0 0 0 0 0 {length}" mass="{mass}"/>'
BENT = """{first}<body name="outer" pos="0 0 {at}">
  <joint name="bend" axis="0 1 0" stiffness="{stiffness}" damping="{damping}"/>{second}</body>"""


def late(lag):
    return f'dyntype="filter" dynprm="{lag}"' if lag else ""


def cartpole(lag=None):
    if lag is None:
        pole = ROD.format(name="pole", length=1.0, mass=0.1)
        return CARTPOLE.format(lag="", cart="", pole=pole, contact="disable", walls="")
    first, second = ROD.format(name="pole", length=0.5, mass=0.05), ROD.format(name="end", length=0.5, mass=0.05)
    pole = BENT.format(first=first, second=second, at=0.5, stiffness=0.6, damping=0.002)
    return CARTPOLE.format(lag=late(lag), cart='frictionloss="0.3"', pole=pole, contact="disable", walls="")


def bumpers(gap=None):
    """A cart-pole between walls, `gap` [m] from the cart on each side."""
    pole = ROD.format(name="pole", length=1.0, mass=0.1).replace("<geom", '<geom contype="0" conaffinity="0"')
    if gap is None:
        return CARTPOLE.format(lag="", cart="", pole=pole, contact="disable", walls="")
    wall = '<geom type="box" size="0.1 0.2 0.2" pos="{} 0 0" solref="0.03 0.5"/>'
    walls = wall.format(-0.3 - gap) + wall.format(0.3 + gap)
    return CARTPOLE.format(lag="", cart="", pole=pole, contact="enable", walls=walls)


def arm(lag=None):
    link = ROD.format(name="lower", length=0.25, mass=0.5)
    if lag is None:
        return ARM.format(lag="", shoulder="", motor="lower", lower=link)
    hub = '<geom name="hub" type="sphere" size="0.02" mass="0.05"/>'
    lower = BENT.format(first=hub, second=link, at=0.0, stiffness=5, damping=0.01)
    return ARM.format(lag=late(lag), shoulder='frictionloss="0.1"', motor="motor", lower=lower)


LAGS, LAG = (0.0, 0.03, 0.06, 0.12), "lag of the motors, which the model lacks [s]"
GAPS, GAP = (0.2, 0.3, 0.4), "distance of the bumpers, which the model lacks [m]"
ROBOTS = {
    "cartpole": {
        "xml": cartpole,
        "lacks": (LAGS, LAG),
        "free": ("body/cart/mass", "body/pole/mass", "joint/slider/damping", "joint/hinge/damping"),
        "weights": (np.array([1.0, 20.0, 0.1, 0.5]), np.array([0.1])),
        "hang": np.array([0.0, np.pi]),
        "spread": np.array([0.3, 0.12, 0.2, 0.2]),
    },
    "arm": {
        "xml": arm,
        "lacks": (LAGS, LAG),
        "free": ("body/upper/mass", "body/lower/mass", "joint/shoulder/damping", "joint/elbow/damping"),
        "weights": (np.array([10.0, 10.0, 0.1, 0.1]), np.array([0.02, 0.02])),
        "hang": np.array([np.pi, 0.0]),
        "spread": np.array([0.15, 0.15, 0.3, 0.3]),
    },
    "bumpers": {
        "xml": bumpers,
        "lacks": (GAPS, GAP),
        "free": ("body/cart/mass", "body/pole/mass", "joint/slider/damping", "joint/hinge/damping"),
        "weights": (np.array([1.0, 20.0, 0.1, 0.5]), np.array([0.1])),
        "hang": np.array([0.0, np.pi]),
        "spread": np.array([0.03, 0.08, 0.1, 0.2]),
    },
}
SUBSTEPS, SECONDS, WORST = 4, 3.0, 30.0
# A free number's place in the model, by the first word of its path.
PLACES = {
    "body": lambda model, name: ("body_mass", model.body(name).id),
    "joint": lambda model, name: ("dof_damping", int(model.joint(name).dofadr[0])),
}


class Real:
    """The real robot: its cost under a gain, mean over starts, and a log of it."""

    def __init__(self, xml, weights, spread):
        self.model = mujoco.MjModel.from_xml_string(xml)
        self.data = mujoco.MjData(self.model)
        self.names = [self.model.sensor(i).name for i in range(self.model.nsensor)]
        self.weights, self.spread = weights, spread

    def starts(self, seed, count=8):
        return self.spread * np.random.default_rng(seed).normal(size=(count, 4))

    def cost(self, gain, starts):
        """Mean over starts of the mean cost of a step [1]; the cost of a step is at most WORST."""
        model, data, (by_state, by_action), total = self.model, self.data, self.weights, 0.0
        steps = int(SECONDS / model.opt.timestep / SUBSTEPS)
        for start in starts:
            mujoco.mj_resetData(model, data)
            data.qpos[:2], data.qvel[:2] = start[:2], start[2:]
            for _ in range(steps):
                state = np.concatenate([data.qpos[:2], data.qvel[:2]])
                action = -gain @ state
                price = by_state @ state**2 + by_action @ action**2
                total += WORST * np.tanh(price / WORST) if np.isfinite(price) else WORST
                data.ctrl[:] = action
                mujoco.mj_step(model, data, SUBSTEPS)
        return total / steps / len(starts)

    def log(self, seed, hang):
        """Four runs that hang down, under random steps of force, with noise of sensors."""
        model, data, rng, runs = self.model, self.data, np.random.default_rng(seed), []
        for run in range(4):
            mujoco.mj_resetData(model, data)
            data.qpos[:2] = hang
            steps, rows = int(4.0 / model.opt.timestep), []
            size = 0.3 * model.actuator_ctrlrange[:, 1]
            ctrl = np.repeat(size * rng.normal(size=(steps // 40 + 1, model.nu)), 40, axis=0)[:steps]
            for u in ctrl:
                data.ctrl[:] = u
                mujoco.mj_forward(model, data)
                rows.append(data.sensordata.copy())
                mujoco.mj_step(model, data)
            measured_ = np.array(rows) + np.array([0.002, 0.002, 0.02, 0.02]) * rng.normal(size=(steps, 4))
            names = tuple(model.actuator(i).name for i in range(model.nu))
            units = (("m", "rad", "m/s", "rad/s") if model.nu == 1 else ("rad", "rad", "rad/s", "rad/s"),)
            more = {
                "ctrl_names": names,
                "ctrl_units": (("N",) if model.nu == 1 else ("N*m",) * 2),
                "sensor_names": tuple(self.names),
            }
            time_ = model.opt.timestep * np.arange(steps)
            runs.append(
                Rollout(name=f"run{run}", time=time_, ctrl=ctrl, sensordata=measured_, sensor_units=units[0], **more)
            )
        return Log("", "simulated", "CC0", tuple(runs))


class Model:
    """The model. theta is the logarithm of its free numbers over the drawn ones; they stay within a factor of ten."""

    def __init__(self, xml, free, weights):
        self.drawn = mujoco.MjModel.from_xml_string(xml)
        self.places = [PLACES[path.split("/")[0]](self.drawn, path.split("/")[1]) for path in free]
        size = 2 * self.drawn.nv
        self.linear = measured(self.linearised, (size, size + self.drawn.nu), step=1e-3)
        self.weights = [jnp.diag(jnp.asarray(part)) for part in weights]

    def linearised(self, theta):
        """A and B side by side, of one control period about the upright posture."""
        model = copy.copy(self.drawn)
        for (field, index), factor in zip(self.places, np.exp(theta), strict=True):
            getattr(model, field)[index] *= factor
        return linearised(model)

    def gain(self, theta):
        return self.gain_of(self.linear(theta))

    def gain_of(self, system):
        return regulator(*jnp.split(system, [len(system)], axis=1), *self.weights, inverse=Dense())[0]


def linearised(model):
    size, data = 2 * model.nv, mujoco.MjData(model)
    a, b = np.zeros((size, size)), np.zeros((size, model.nu))
    mujoco.mjd_transitionFD(model, data, 1e-6, 1, a, b, None, None)
    whole, pushed = np.eye(size), np.zeros_like(b)
    for _ in range(SUBSTEPS):
        whole, pushed = a @ whole, a @ pushed + b
    return np.concatenate([whole, pushed], axis=1)


def descended(cost, start, iterations, rate, project=None):
    """The best theta of projected Adam on an exact cost."""
    rule, stopping = FirstOrder(optax.adam(rate), project), Stopping(noise_floor=False)
    keep = Best(lambda state: state.value, take=lambda state: state.theta)
    result = minimise(
        jax.random.key(0),
        ExactSampler(cost),
        jnp.asarray(start),
        rule,
        iterations=iterations,
        stopping=stopping,
        keep=keep,
    )
    return result.best.kept


def cell(robot, lacking, seed, iterations):
    """Cost on unseen starts, by model."""
    build, weights = robot["xml"], robot["weights"]
    real, model = Real(build(lacking), weights, robot["spread"]), Model(build(), robot["free"], weights)
    seen, unseen = real.starts(seed, 4), real.starts(1000 + seed, 20)
    shape = (model.drawn.nu, 2 * model.drawn.nv)
    price = measured(
        lambda gain: real.cost(gain.reshape(shape), seen),
        step=1e-3 * np.abs(np.asarray(model.gain(jnp.zeros(4)))).ravel(),
    )
    found = dso.identify(
        build_file(build()), real.log(seed, robot["hang"]), free=list(robot["free"]), progress=False
    ).model()
    likely = [float(getattr(found, f)[i] / getattr(model.drawn, f)[i]) for f, i in model.places]
    box = lambda theta: jnp.clip(theta, -2.3, 2.3)  # noqa: E731
    designed = descended(lambda theta: price(model.gain(theta).ravel()), jnp.zeros(4), iterations, 0.1, box)
    scale = jnp.abs(model.gain(designed)).ravel() + 1e-3
    free = descended(lambda gain: price(gain * scale), model.gain(designed).ravel() / scale, iterations, 0.03) * scale
    gains = {
        "drawn": model.gain(jnp.zeros(4)),
        "likelihood": model.gain_of(jnp.asarray(linearised(found))),
        "designed": model.gain(designed),
    }
    gains["best gain"] = free.reshape(shape)
    costs = {name: real.cost(np.asarray(gain), unseen) for name, gain in gains.items()}
    return {"costs": costs, "likelihood": likely, "designed": np.exp(designed).tolist()}


def build_file(xml):
    return mujoco.MjSpec.from_string(xml)


def draw(results, path):
    fig, axes = plt.subplots(1, len(ROBOTS), figsize=(14, 4), layout="constrained")
    for ax, name in zip(axes, ROBOTS, strict=True):
        for kind, colour in zip(
            ("drawn", "likelihood", "designed", "best gain"), ("grey", "tab:blue", "tab:red", "black"), strict=True
        ):
            values = ROBOTS[name]["lacks"][0]
            rows = [[r["costs"][kind] for key, r in results.items() if key.startswith(f"{name} {s} ")] for s in values]
            at = [s for s, row in zip(values, rows, strict=True) if row]
            rows = [np.array(row) for row in rows if row]
            if rows:
                ax.plot(
                    at,
                    [np.median(row) for row in rows],
                    color=colour,
                    label=kind,
                    marker="o",
                    ls="--" if kind == "best gain" else "-",
                )
                ax.fill_between(at, [row.min() for row in rows], [row.max() for row in rows], color=colour, alpha=0.12)
        ax.set(yscale="log", xlabel=ROBOTS[name]["lacks"][1], title=name)
    axes[0].set_ylabel("cost per step on the real robot (median, range)")
    axes[0].legend()
    fig.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("robots", nargs="*", default=list(ROBOTS))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--iterations", type=int, default=40)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent / "results")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "companions_robot.json"
    results = begun(path)
    for seed, name in itertools.product(range(args.seeds), args.robots):
        for lacking in ROBOTS[name]["lacks"][0]:
            key = f"{name} {lacking} {seed}"
            if key in results:
                continue
            start = time.perf_counter()
            results[key] = cell(ROBOTS[name], lacking, seed, args.iterations)
            told = ", ".join(f"{kind} {value:.3f}" for kind, value in results[key]["costs"].items())
            print(f"{key}: {told}, {time.perf_counter() - start:.0f} s", flush=True)
            path.write_text(json.dumps(results, indent=1) + "\n")
        draw(results, path.with_suffix(".png"))


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    main()
