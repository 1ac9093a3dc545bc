"""Cart-pole swing-up by dso and by CMA-ES: return over environment steps and wall time, several seeds, judged on C MuJoCo.

Run: python benchmarks/policy.py [--seeds 5] [--tool dso cma]. CMA-ES needs `pip install cma`. Numbers go to
benchmarks/results/policy.json; --redraw draws the figure again from them.
"""

import argparse
import json
import os
import pathlib
import platform
import tempfile
import time

import numpy as np

HERE = pathlib.Path(__file__).parent
STUDY = HERE.parent / "examples" / "studies" / "cartpole_swing_up.toml"
RESULTS = HERE / "results" / "policy.json"
CACHE = tempfile.TemporaryDirectory()
STEPS, BUDGET, GOAL = 1000, 1_000_000, 700.0


def run_dso(seed: int) -> dict:
    """One training by dso; the wall time holds compilation, evaluations on C and, for the first seed, imports."""
    import dataclasses

    from dso_robotics.cli.jax_setup import prepare_jax

    prepare_jax()
    # A cache of this run's own: the first seed compiles cold, as a user's first run does, the others warm.
    os.environ["JAX_COMPILATION_CACHE_DIR"] = CACHE.name
    began = time.perf_counter()
    from dso_robotics.studies.train import train
    from dso_robotics.studies.train_study import read_train_study

    study = dataclasses.replace(read_train_study(STUDY), seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        found = train(study, pathlib.Path(folder) / "out")
    history = found.history
    return {
        "steps": history["steps"].tolist(),
        "return": (STEPS - history["episode_cost"]).tolist(),
        "seconds": history["seconds"].tolist(),
        "final": found.summary["episodes"]["return"],
        "compile": found.summary["seconds"]["compile"],
        "total": time.perf_counter() - began,
        "training_steps": found.summary["environment_steps"],
    }


class Episodes:
    """Returns of network policies from the hanging start on C MuJoCo, for CMA-ES."""

    def __init__(self, seed: int, hidden: int = 16):
        import mujoco

        self.mujoco, self.model = mujoco, mujoco.MjModel.from_xml_path(str(HERE.parent / "models" / "cartpole.xml"))
        self.data, self.rng, self.hidden = mujoco.MjData(self.model), np.random.default_rng(seed), hidden
        self.size, self.steps = 7 * hidden + 1, 0

    def __call__(self, weights: np.ndarray, steps: int = STEPS) -> float:
        """Return of one episode; the observation is that of dso, divided by fixed sizes."""
        h, data = self.hidden, self.data
        first, offset = weights[: 5 * h].reshape(h, 5), weights[5 * h : 6 * h]
        last, bias = weights[6 * h : 7 * h], weights[-1]
        self.mujoco.mj_resetData(self.model, data)
        data.qpos[:] = [0.0, np.pi] + 0.01 * self.rng.standard_normal(2)
        data.qvel[:] = 0.01 * self.rng.standard_normal(2)
        scale, total = np.log(0.1), 0.0
        for _ in range(steps):
            x, angle = data.qpos
            seen = np.array([x, np.sin(angle), np.cos(angle), data.qvel[0] / 2, data.qvel[1] / 5])
            ctrl = np.tanh(last @ np.tanh(first @ seen + offset) + bias)
            data.ctrl[0] = ctrl
            self.mujoco.mj_step(self.model, data)
            centred, slow = np.exp(scale * (data.qpos[0] / 2) ** 2), np.exp(scale * (data.qvel[1] / 5) ** 2)
            upright, small = (1 + np.cos(data.qpos[1])) / 2, (4 + 1 - ctrl**2) / 5
            total += upright * small * (1 + centred) / 2 * (1 + slow) / 2
        self.steps += steps
        return total


def run_cma(seed: int) -> dict:
    """CMA-ES with its own default population on a network of 16 units; its best mean is judged at every tenth of the budget."""
    import cma

    began, episodes = time.perf_counter(), Episodes(seed)
    judge = Episodes(seed + 1000)
    options = {"seed": seed + 1, "verbose": -9, "CMA_diagonal": 0}
    search = cma.CMAEvolutionStrategy(np.zeros(episodes.size), 0.5, options)
    rows, looks = [], 1
    while episodes.steps < BUDGET:
        asked = search.ask()
        search.tell(asked, [-episodes(weights) for weights in asked])
        if episodes.steps >= looks * BUDGET / 10:
            rows.append((episodes.steps, judge(search.result.xfavorite), time.perf_counter() - began))
            looks += 1
    steps, returns, seconds = (list(column) for column in zip(*rows, strict=True))
    final = [judge(search.result.xfavorite) for _ in range(3)]
    total = time.perf_counter() - began
    return {
        "steps": steps,
        "return": returns,
        "seconds": seconds,
        "final": final,
        "compile": 0.0,
        "total": total,
        "training_steps": episodes.steps,
    }


def draw(results: dict) -> None:
    """The figure next to the numbers."""
    from dso_robotics.report import canvas

    figure, axes = canvas.rows(2.8, 1)
    axis = axes[0, 0]
    for colour, (tool, runs) in zip(canvas.PALETTE, results["runs"].items(), strict=False):
        for k, run in enumerate(runs):
            axis.plot(run["steps"], run["return"], color=colour, linewidth=1.2, label=tool if k == 0 else None)
    axis.axhline(GOAL, color=canvas.GREY, linewidth=0.8)
    axis.legend(frameon=False, fontsize=canvas.SMALL)
    canvas.title(axis, "cart-pole swing-up: return of 1000 steps on C MuJoCo, a line a seed")
    canvas.label(axis, x="environment steps", y="return", inches=(0.24, 0.5))
    (HERE / "results" / "policy.png").write_bytes(canvas.picture(figure, "policy.png", "").png)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tool", nargs="+", default=["dso", "cma"], choices=["dso", "cma"])
    parser.add_argument("--redraw", action="store_true")
    args = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {"runs": {}}
    if not args.redraw:
        for tool in args.tool:
            run = run_dso if tool == "dso" else run_cma
            results["runs"][tool] = []
            for seed in range(args.seeds):
                found = run(seed)
                results["runs"][tool].append(found)
                reached = [s for s, r in zip(found["steps"], found["return"], strict=True) if r >= GOAL]
                print(
                    f"{tool} seed {seed}: return {min(found['final']):.0f} to {max(found['final']):.0f}, {GOAL:g} reached at "
                    f"{reached[0] if reached else '-'} of {found['training_steps']} steps, {found['total']:.0f} s "
                    f"({found['compile']:.0f} s compiling)",
                    flush=True,
                )
        import mujoco

        results["machine"] = f"{os.cpu_count()} cores, python {platform.python_version()}, mujoco {mujoco.__version__}"
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    draw(results)


if __name__ == "__main__":
    main()
