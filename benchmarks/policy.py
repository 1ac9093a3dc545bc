"""Cart-pole swing-up by dso, CMA-ES and Brax: return over environment steps and wall time, several seeds, measured on C MuJoCo.

Run: python benchmarks/policy.py [--seeds 0 1 2 3 4] [--tool dso cma brax-ppo-small ...]. CMA-ES is in requirements/bench.txt.
Brax is in the environment of `make bench-brax`. Numbers are written to benchmarks/results/policy.json when a seed has finished.
--redraw draws the figure again.

brax-NAME is a training of policy_brax.py that always starts hanging. brax-NAME-wide has the start states of dso's windows.
"""

import argparse
import json
import os
import pathlib
import platform
import subprocess
import tempfile
import time

import numpy as np
from provenance import begun

HERE = pathlib.Path(__file__).parent
STUDY = HERE.parent / "examples" / "studies" / "cartpole_swing_up.toml"
RESULTS = HERE / "results" / "policy.json"
CACHE = tempfile.TemporaryDirectory()
STEPS, BUDGET, GOAL = 1000, 1_000_000, 700.0
# Environment steps, looks at the return, and seconds after which a run of Brax ends at its next look.
BRAX = {
    "ppo-small": (5_400_000, 54, 300),
    "ppo": (5_400_000, 5, 300),
    "sac": (1_000_000, 50, 300),
    "apg": (1_024_000, 10, 300),
    "apg-fast": (972_800, 19, 300),
}
# The study's [training] in action space, where it differs from the study's own.
ACTION_SPACE = {
    "dso-pco": {"method": "pco", "environments": 64, "horizon": 64, "iterations": 1200, "learning_rate": 3e-3},
    "dso-natural": {"method": "natural", "environments": 64, "horizon": 64, "iterations": 1200},
}
TOOLS = ("dso", *ACTION_SPACE, "cma", *(f"brax-{name}{starts}" for starts in ("", "-wide") for name in BRAX))


def run_dso(seed: int, tool: str = "dso") -> dict:
    """One training by dso. The wall time includes compilation, evaluations on C and, for the first seed, imports."""
    import dataclasses

    from dso_robotics.cli.jax_setup import prepare_jax

    prepare_jax()
    # A cache of this run's own: the first seed compiles cold, as a user's first run does, the others warm.
    os.environ["JAX_COMPILATION_CACHE_DIR"] = CACHE.name
    began = time.perf_counter()
    from dso_robotics.studies.train import train
    from dso_robotics.studies.train_study import TrainStudy

    study = TrainStudy.read(STUDY)
    study = dataclasses.replace(
        study, seed=seed, training=dataclasses.replace(study.training, **ACTION_SPACE.get(tool, {}))
    )
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
        "cores": len(os.sched_getaffinity(0)),
    }


def run_brax(seed: int, tool: str) -> dict:
    """One training by Brax, in its own environment and process. Wall time includes imports, compilation, evaluations on C."""
    python = HERE.parent / ".venv-brax" / "bin" / "python"
    if not python.is_file():
        raise SystemExit("Brax has an environment of its own; make it with: make bench-brax")
    name = tool.removeprefix("brax-")
    wide, name = name.endswith("-wide"), name.removesuffix("-wide")
    steps, looks, cap = BRAX[name]
    command = [str(python), str(HERE / "policy_brax.py"), name, f"--seed={seed}", f"--steps={steps}"]
    command += [f"--looks={looks}", f"--cap={cap}", *(["--wide"] if wide else [])]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"JAX_COMPILATION_CACHE_DIR": CACHE.name}
    try:
        # A look may be far away where an update is long; then there is nothing to report but that.
        done = subprocess.run(command, stdout=subprocess.PIPE, env=environment, text=True, check=True, timeout=2 * cap)
    except subprocess.TimeoutExpired:
        nothing = {"steps": [0], "return": [0.0], "seconds": [0.0], "final": [0.0], "compile": 0.0, "training_steps": 0}
        return nothing | {"total": 2.0 * cap, "ended": "no look at the return within this time"}
    return json.loads(done.stdout.splitlines()[-1])


class Episodes:
    """Returns of network policies from the hanging start on C MuJoCo, for CMA-ES."""

    def __init__(self, seed: int, hidden: int = 16):
        import mujoco

        self.mujoco, self.model = mujoco, mujoco.MjModel.from_xml_path(str(HERE.parent / "models" / "cartpole.xml"))
        self.data, self.rng, self.hidden = mujoco.MjData(self.model), np.random.default_rng(seed), hidden
        self.size, self.steps = 7 * hidden + 1, 0

    def __call__(self, weights: np.ndarray, steps: int = STEPS) -> float:
        """Return of one episode. The observation is that of dso, divided by fixed scales."""
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
    """CMA-ES with its default population on a network of 16 units. Its best mean is evaluated at every tenth of the budget."""
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
        "cores": len(os.sched_getaffinity(0)),
    }


def draw(results: dict) -> None:
    """The figure, saved beside the numbers: one line for each seed, over environment steps and over wall time."""
    from dso_robotics.report import canvas

    figure, axes = canvas.rows(3.2, 1, (1.0, 1.0), share=False, top=0.95)
    shown = [tool for tool in TOOLS if results["runs"].get(tool)]
    styles = [(colour, line) for line in ("-", "--") for colour in canvas.PALETTE]
    for (colour, line), tool in zip(styles, shown, strict=False):
        for k, run in enumerate(results["runs"][tool]):
            for axis, key in zip(axes[0], ("steps", "seconds"), strict=True):
                name = tool if k == 0 else None
                axis.plot(run[key], run["return"], color=colour, linestyle=line, linewidth=1.1, label=name)
    for axis in axes[0]:
        axis.axhline(GOAL, color=canvas.GREY, linewidth=0.8)
        axis.set_xscale("log")
        axis.set_ylim(0, 900)
    axes[0, 0].set_xlim(1e4, 1e7)
    axes[0, 1].set_xlim(5, 700)
    names = axes[0, 0].get_legend_handles_labels()
    figure.legend(*names, frameon=False, fontsize=canvas.SMALL, loc="upper left", ncol=5, bbox_to_anchor=(0.06, 1.0))
    canvas.title(axes[0, 0], "cart-pole swing-up: return on C MuJoCo, a line a seed")
    canvas.title(axes[0, 1], "the same over time; some seeds ran on one core")
    canvas.label(axes[0, 0], x="environment steps", y="return", inches=(0.24, 0.5))
    canvas.label(axes[0, 1], x="wall time, s, compilation included", inches=(0.24, 0.5))
    (HERE / "results" / "policy.png").write_bytes(canvas.picture(figure, "policy.png", "").png)


def reached(run: dict) -> tuple[float, float] | None:
    """Environment steps and seconds at the first evaluation that reaches the goal return."""
    rows = zip(run["steps"], run["return"], run["seconds"], strict=True)
    return next(((steps, seconds) for steps, got, seconds in rows if got >= GOAL), None)


def keep(tool: str, seed: int, found: dict) -> None:
    """Write one run to the file, replacing an older one with the same seed."""
    import mujoco

    results = begun(RESULTS, {"runs": {}})
    found["seed"] = seed
    runs = [run for run in results["runs"].get(tool, []) if run["seed"] != seed]
    results["runs"][tool] = sorted([*runs, found], key=lambda run: run["seed"])
    results["machine"] = (
        f"two cores of a shared x86 machine, python {platform.python_version()}, mujoco {mujoco.__version__}"
    )
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--tool", nargs="+", default=["dso", "cma"], choices=TOOLS)
    parser.add_argument("--redraw", action="store_true")
    args = parser.parse_args()
    for tool in args.tool if not args.redraw else []:
        for seed in args.seeds:
            found = run_cma(seed) if tool == "cma" else (run_dso if tool.startswith("dso") else run_brax)(seed, tool)
            keep(tool, seed, found)
            when = reached(found)
            print(
                f"{tool} seed {seed}: return {min(found['final']):.0f} to {max(found['final']):.0f} after "
                f"{found['training_steps']} steps, {found['total']:.0f} s ({found['compile']:.0f} s compiling); {GOAL:g} "
                + (f"at {when[0]:.0f} steps, {when[1]:.0f} s" if when else "not reached"),
                flush=True,
            )
    draw(json.loads(RESULTS.read_text()))


if __name__ == "__main__":
    main()
