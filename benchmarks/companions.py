"""Actor-critics against published runs and against the methods of this package: return over steps and wall time.

Run: python benchmarks/companions.py [--task pendulum swing-up] [--method sac td3 ...] [--seeds 0 1 2]. Every run is written to
benchmarks/results/companions.json when it has finished, and is not done again. --table prints what is there.

A name such as ppo-short is that method with other settings, see SETTINGS.

pendulum: trained on the rod of Gymnasium's Pendulum-v1 as a study on C MuJoCo (the same rod, cost, starts and step; without its
limit of 8 rad/s), judged on Pendulum-v1 itself, 750 episodes. Published: single runs of stable-baselines3 in rl-zoo3.
swing-up: examples/studies/cartpole_swing_up.toml, with the settings of that study for pathwise, judged as `dso train` judges.
"""

import argparse
import dataclasses
import json
import pathlib
import platform
import tempfile
import time

import numpy as np
from provenance import begun

HERE = pathlib.Path(__file__).parent
RESULTS = HERE / "results" / "companions.json"
SWING_UP = HERE.parent / "examples" / "studies" / "cartpole_swing_up.toml"
EPISODES = 750
PUBLISHED = {"sac": -157.0, "td3": -152.0, "ddpg": -152.0, "ppo": -172.0}
ROD = """<mujoco model="pendulum">
  <option timestep="0.05" integrator="Euler" gravity="0 0 -10"/>
  <worldbody><body name="rod">
    <joint name="hinge" axis="0 1 0"/>
    <inertial pos="0 0 0.5" mass="1" diaginertia="0.0833333333 0.0833333333 0.001"/>
    <geom type="capsule" fromto="0 0 0 0 0 1" size="0.05" mass="0" contype="0" conaffinity="0"/>
  </body></worldbody>
  <actuator><motor name="torque" joint="hinge" ctrlrange="-2 2"/></actuator>
</mujoco>"""
OFF_POLICY = {
    "environments": 4,
    "horizon": 16,
    "critic_batch": 256,
    "critic_hidden": 64,
    "critic_rate": 1e-3,
    "learning_rate": 1e-3,
    "warmup": 1000,
    "restart": 0.0,
}
PENDULUM = {
    method: {**OFF_POLICY, "iterations": 312, "gamma": 0.98, "explore": 1.0, "replay": 20_000, "keep": "last"}
    for method in ("sac", "td3", "ddpg", "nfqca", "fitted_q", "amortised_q")
}
# The sizes of the published run: 25 batches of 4,000 steps, ten passes over each in minibatches of 64, a constant step size, no
# stop at a divergence, and returns of the newest critic.
_PPO = {"gamma": 0.9, "explore": 1.0, "restart": 0.0, "learning_rate": 1e-3, "critic_rate": 1e-3, "critic_batch": 64}
PENDULUM["ppo"] = _PPO | {
    "environments": 20,
    "horizon": 200,
    "iterations": 25,
    "updates": 625,
    "critic_updates": 625,
    "divergence": 1.0,
    "target": 1.0,
    "final_rate": 1.0,
    "noise_end": 1.0,
    "keep": "last",
}
PENDULUM["ppo-falling"] = PENDULUM["ppo"] | {"noise_end": 0.3}
PENDULUM["ppo-learned"] = {name: value for name, value in PENDULUM["ppo"].items() if name != "noise_end"}
PENDULUM["ppo-short"] = _PPO | {
    "environments": 16,
    "horizon": 64,
    "iterations": 97,
    "updates": 160,
    "critic_updates": 160,
    "divergence": 0.05,
    "noise_end": 0.2,
    "keep": "last",
}
SETTINGS = {
    "pendulum": PENDULUM,
    "swing-up": {
        "pathwise": {},
        "sac": {**OFF_POLICY, "environments": 16, "horizon": 16, "ratio": 0.25, "iterations": 1250, "restart": 0.05},
        "td3": {**OFF_POLICY, "environments": 16, "horizon": 16, "ratio": 0.25, "iterations": 1250, "restart": 0.05},
    },
}


def method_of(name: str) -> str:
    """The training method of a row: what comes before the dash."""
    return name.split("-")[0]


def wrapped_cost() -> None:
    """Register the cost of Pendulum-v1: the square of the angle from upright, between -pi and pi."""
    import jax.numpy as jnp

    from dso_robotics.costs.kind import COSTS, MotionCost, Scope
    from dso_robotics.costs.task import Function, Term

    @COSTS.register("angle-of-the-rod")
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class UprightCost(MotionCost):
        """The square of the wrapped position of the hinge."""

        def term(self, scope: Scope) -> Term:
            angle = scope.quantity("joint/hinge/position")

            def squared(scene):
                q = angle.read(scene)[0]
                return jnp.arctan2(jnp.sin(q), jnp.cos(q)) ** 2

            return Function(squared)


def pendulum(method: str, seed: int) -> dict:
    """One training on the rod, judged on Gymnasium's own."""
    import gymnasium

    import dso_robotics as dso

    wrapped_cost()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "rod.xml"
        path.write_text(ROD)
        began, busy = time.perf_counter(), time.process_time()
        found = dso.train(
            path,
            seed=seed,
            seconds=10.0,
            policy={
                "hidden": [64, 64],
                "noise": 0.5 if method_of(method) in ("sac", "ppo") else 0.1,
                "learn_noise": method == "ppo-learned",
            },
            start={"position": {"hinge": np.pi}, "spread": 1.0},
            explore={"position": {"hinge": [-np.pi, np.pi]}, "velocity": {"hinge": [-1.0, 1.0]}},
            cost={
                "angle": {"kind": "angle-of-the-rod"},
                "speed": {"kind": "square", "quantity": "joint/hinge/velocity", "weight": 0.1},
                "torque": {"kind": "square", "quantity": "control", "weight": 0.001},
            },
            training={"method": method_of(method), **SETTINGS["pendulum"][method]},
        )
        seconds, busy = time.perf_counter() - began, time.process_time() - busy
        policy, returns = found.policy, []
        env = gymnasium.make("Pendulum-v1")
        for episode in range(EPISODES):
            env.reset(seed=10_000 + episode)
            policy.reset()
            total, over = 0.0, False
            while not over:
                theta, speed = env.unwrapped.state
                _, reward, ended, cut, _ = env.step(policy.act(qpos=[theta], qvel=[speed]))
                total, over = total + float(reward), ended or cut
            returns.append(total)
        summary = found.summary
    return {
        "return": float(np.mean(returns)),
        "spread": float(np.std(returns)),
        "steps": summary["environment_steps"],
        "seconds": seconds,
        "cpu": busy,
        "compile": summary["seconds"]["compile"],
    }


def swing_up(method: str, seed: int) -> dict:
    """One training on the swing-up of the cart-pole."""
    from dso_robotics.public.computing import computing
    from dso_robotics.studies.train import train
    from dso_robotics.studies.train_study import TrainStudy

    study = TrainStudy.read(SWING_UP)
    training = dataclasses.replace(study.training, **SETTINGS["swing-up"][method], method=method)
    study = dataclasses.replace(study, seed=seed, training=training)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, computing(jax=True):
        found = train(study, pathlib.Path(folder) / "out")
    history = found.history
    return {
        "return": float(np.mean(found.summary["episodes"]["return"])),
        "steps": found.summary["environment_steps"],
        "seconds": time.perf_counter() - began,
        "compile": found.summary["seconds"]["compile"],
        "curve": {
            "steps": history["steps"].tolist(),
            "return": (found.task.steps - history["episode_cost"]).tolist(),
            "seconds": history["seconds"].tolist(),
        },
    }


TASKS = {"pendulum": pendulum, "swing-up": swing_up}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--method", nargs="+")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--table", action="store_true", help="print the results and run nothing")
    args = parser.parse_args()
    results = begun(RESULTS, {"rows": []})
    rows = results["rows"]
    done = {(row["task"], row["method"], row["seed"]) for row in rows}
    wanted = [
        (task, method, seed)
        for seed in args.seeds
        for task in args.task
        for method in (args.method or SETTINGS[task])
        if method in SETTINGS[task] and (task, method, seed) not in done and not args.table
    ]
    for task, method, seed in wanted:
        row = {"task": task, "method": method, "seed": seed, "settings": SETTINGS[task][method]}
        row |= TASKS[task](method, seed)
        rows.append(row | {"date": time.strftime("%Y-%m-%d"), "python": platform.python_version()})
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        print(row["task"], row["method"], row["seed"], f"{row['return']:.1f} in {row['seconds']:.0f} s", flush=True)
    for row in sorted(rows, key=lambda one: (one["task"], one["method"], one["seed"])):
        published = PUBLISHED.get(method_of(row["method"]), "") if row["task"] == "pendulum" else ""
        print(
            f"{row['task']:10s} {row['method']:11s} {row['seed']} {row['return']:8.1f} {published!s:8s} {row['steps']} steps",
            end="",
        )
        cpu = f", {row['cpu']:.0f} s of processor" if "cpu" in row else ""
        print(f" {row['seconds']:.0f} s, of these {row['compile']:.0f} s compiling{cpu}")


if __name__ == "__main__":
    main()
