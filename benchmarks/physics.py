"""Speed, compile time and memory of the differentiable step and of plain MJX, on one machine in one run.

    python benchmarks/physics.py                     # models/hopper.xml, float64, horizon 32, batch 64, 1 and 1024
    python benchmarks/physics.py --batch 64 1 --quick

Four programs on the same rollouts (random controls, from standing):
  dso       this package, at the model's own iterations: forward, and value-and-gradient in reverse mode
  mjx       plain mjx.step at the model's own iterations: forward only, since reverse mode raises
  mjx-1     plain mjx.step at iterations=1: forward, and value-and-gradient in reverse mode (of a solve that has not converged)
Prints a table and writes benchmarks/results/physics.json. Every row is traced and compiled in its own process. Rows of
the first batch run twice with one cache folder: the first time is cold, the second finds the compiled program.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import time

from dso_robotics.cli.jax_setup import add_xla_flags, quick_to_compile

ROOT = pathlib.Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "physics.json"
PROGRAMS = (("dso", "forward"), ("mjx", "forward"), ("mjx-1", "forward"), ("dso", "gradient"), ("mjx-1", "gradient"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(ROOT / "models" / "hopper.xml"))
    parser.add_argument("--horizon", type=int, default=32)
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 1, 1024])
    parser.add_argument("--quick", action="store_true", help="no memory against horizon")
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    parser.add_argument("--table", action="store_true", help="run nothing, print the table of the last run")
    args = parser.parse_args()
    if args.table:
        print(table(json.loads(RESULTS.read_text())))
        return
    if args.one:
        engine, what, batch, horizon, cache = args.one
        print(json.dumps(measure(args.model, engine, what, int(batch), int(horizon), cache)))
        return
    rows, memory = [], {}
    with tempfile.TemporaryDirectory() as cache:
        for batch in args.batch:
            for engine, what in PROGRAMS:
                folder = f"{cache}/{engine}-{what}-{batch}"
                row = child(args.model, engine, what, batch, args.horizon, folder)
                if batch == args.batch[0]:
                    warm = child(args.model, engine, what, batch, args.horizon, folder)
                    row |= {f"{key}_warm": warm[key] for key in ("trace_seconds", "compile_seconds")}
                    row["seconds"] = min(row["seconds"], warm["seconds"])
                row["steps_per_second"] = batch * args.horizon / row["seconds"]
                rows.append(row)
                print(line(row), flush=True)
                save(args, rows, memory)
        for horizon in () if args.quick else (8, 128):
            found = child(args.model, "dso", "gradient", 64, horizon, f"{cache}/memory-{horizon}")
            memory[horizon] = found["memory_bytes"]
            print(f"memory of a reverse pass, batch 64, horizon {horizon}: {memory[horizon] / 1e6:.1f} MB", flush=True)
            save(args, rows, memory)
    print(table(json.loads(RESULTS.read_text())))


def save(args: argparse.Namespace, rows: list[dict], memory: dict[int, int]) -> None:
    found = about(args) | {"rows": rows, "memory_bytes_of_gradient_at_batch_64_by_horizon": memory}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


def child(model: str, *arguments: object) -> dict:
    command = [sys.executable, __file__, "--model", model, "--one", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def measure(path: str, engine: str, what: str, batch: int, horizon: int, cache: str) -> dict:
    """Trace, compile and time one program."""
    add_xla_flags(*quick_to_compile())
    import jax
    import jax.numpy as jnp
    import mujoco

    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    from dso_robotics.physics import step as physics
    from dso_robotics.physics.backend import mjx
    from dso_robotics.physics.device import put_model

    model = mujoco.MjModel.from_xml_path(path)
    if engine == "mjx-1":
        model.opt.iterations = 1
    made = put_model(model)

    def cost(state) -> jax.Array:
        return jnp.sum(state.qpos**2) + 0.1 * jnp.sum(state.qvel**2)

    def following(state, ctrl):
        state = physics.advance(made, state, ctrl) if engine == "dso" else mjx.step(made, state.replace(ctrl=ctrl))
        return state, cost(state)

    def total(ctrls):
        start = physics.make_state(made) if engine == "dso" else mjx.make_data(made)
        return jax.lax.scan(following, start, ctrls)[1].sum()

    def mean(ctrls):
        return jax.vmap(total)(ctrls).mean()

    program = jax.jit(mean if what == "forward" else jax.value_and_grad(mean))
    ctrls = 0.5 * jax.random.normal(jax.random.key(0), (batch, horizon, model.nu))
    began = time.perf_counter()
    lowered = program.lower(ctrls)
    traced = time.perf_counter()
    compiled = lowered.compile()
    ready = time.perf_counter()
    found = jax.block_until_ready(compiled(ctrls))
    seconds, spent = [], 0.0
    while spent < 2.0 or len(seconds) < 3:
        start = time.perf_counter()
        jax.block_until_ready(compiled(ctrls))
        seconds.append(time.perf_counter() - start)
        spent += seconds[-1]
    analysis = compiled.memory_analysis()
    return {
        "engine": engine,
        "iterations": int(model.opt.iterations),
        "what": what,
        "batch": batch,
        "horizon": horizon,
        "trace_seconds": traced - began,
        "compile_seconds": ready - traced,
        "seconds": min(seconds),
        "value": float(found if what == "forward" else found[0]),
        "memory_bytes": int(analysis.temp_size_in_bytes),
    }


def line(row: dict) -> str:
    warm = f", {row['compile_seconds_warm']:.1f} s warm" if "compile_seconds_warm" in row else ""
    return (
        f"{row['engine']:6} {row['what']:9} batch {row['batch']:5d}: {row['steps_per_second']:10,.0f} steps/s; "
        f"trace {row['trace_seconds']:.1f} s, compile {row['compile_seconds']:.1f} s cold{warm}; "
        f"{row['memory_bytes'] / 1e6:.1f} MB"
    )


def table(found: dict) -> str:
    """The last run as Markdown, for docs/physics.md."""
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    lines = [
        f"`{found['command']}` on {found['model']}, {found['precision']}, {found['cores']} cores of {found['cpu']};",
        f"{versions}.",
        "",
        "| program | iterations | batch | steps/s | trace s | compile s, cold | compile s, warm | memory MB |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in found["rows"]:
        warm = f"{row['compile_seconds_warm']:.1f}" if "compile_seconds_warm" in row else ""
        lines.append(
            f"| {row['engine']} {row['what']} | {row['iterations']} | {row['batch']} | {row['steps_per_second']:,.0f} "
            f"| {row['trace_seconds']:.1f} | {row['compile_seconds']:.1f} | {warm} | {row['memory_bytes'] / 1e6:.1f} |"
        )
    by_horizon = dict(found["memory_bytes_of_gradient_at_batch_64_by_horizon"])
    for row in found["rows"]:
        if (row["engine"], row["what"], row["batch"]) == ("dso", "gradient", 64):
            by_horizon[str(row["horizon"])] = row["memory_bytes"]
    if by_horizon:
        sizes = (f"{by_horizon[h] / 1e6:.1f} MB at {h}" for h in sorted(by_horizon, key=int))
        lines += ["", f"Memory of a gradient (batch 64) against horizon: {', '.join(sizes)}."]
    return "\n".join(lines)


def about(args: argparse.Namespace) -> dict:
    """Command, model, machine and versions of the measurement."""
    cpu = platform.processor()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as file:
            cpu = next((text.partition(":")[2].strip() for text in file if text.startswith("model name")), cpu)
    return {
        "command": f"python benchmarks/physics.py --batch {' '.join(map(str, args.batch))} --horizon {args.horizon}",
        "model": pathlib.Path(args.model).name,
        "cpu": cpu,
        "cores": os.cpu_count(),
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in ("mujoco", "mujoco-mjx", "jax", "jaxlib")},
        "precision": "float64",
    }


if __name__ == "__main__":
    main()
