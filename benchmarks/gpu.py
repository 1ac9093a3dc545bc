"""What a GPU gives: correctness, speed against batch, and training with thousands of environments, in so many minutes.

    python benchmarks/gpu.py --minutes 8          # on the machine with the GPU (without a network: benchmarks/gpu_wheels.sh)
    python benchmarks/gpu.py --dry --minutes 10   # a rehearsal on the CPU: every kind of row with tiny sizes; no result is kept
    python benchmarks/gpu.py --table              # writes docs/gpu.md from the rows

Rows are ordered so that every minute yields some, and each is written to benchmarks/results/gpu.json (--out) as soon as it
is there. Each piece of work is a process of its own; several compile at the same time, and one at a time measures (a lock).
"seconds" of a training leave out its waiting for the lock. What is left out is a row that says so.
Kinds of rows:

  correct    next state and derivative of a step on random states: this device in float64 and float32 against C MuJoCo
  speed      steps/s of rollouts of 32 steps, forward and value-and-gradient, against batch; dso, and plain mjx.step forward
  train      cart-pole swing-up with the study's 32 environments and with 4,096, on MJX, and at the end on C MuJoCo with all
             cores: cost of an episode on C MuJoCo against time
  together   examples/studies/everything.toml with 4,096 environments: physics, sensors, estimator and policy from one vector
  brax       PPO of Brax on the same physics, where the Brax that is installed runs with the JAX there; else a row that says so

models/ has cart-pole, hopper and half cheetah; ant and humanoid are read from the package gymnasium.
"""

import argparse
import concurrent.futures
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import platform
import queue
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
RESULTS = ROOT / "benchmarks" / "results" / "gpu.json"
# Kind and argument. What comes first is begun first.
WORK = (
    ("correct", "cartpole"),
    ("speed", "cartpole float32 4096,64,1024,16384,65536"),
    ("correct", "hopper"),
    ("speed", "hopper float32 4096,65536,64,1024,16384"),
    ("speed", "half_cheetah float32 4096,65536,64,1024,16384"),
    ("speed", "ant float32 4096,65536,1024,64,16384"),
    ("speed", "humanoid float32 4096,65536,1024,64,16384"),
    ("brax", ""),
    ("correct", "half_cheetah"),
    ("correct", "ant"),
    ("correct", "humanoid"),
    ("speed", "hopper float64 4096"),
    ("speed", "cartpole float64 4096"),
)
# Begun when all of the above has ended, or half of the time has passed.
TRAININGS = (("train", "mjx float32 4096"), ("together", "mjx float32 4096"), ("train", "mjx float32 32"))
# Begun last, with all cores for itself; so much of the time is kept for it.
ALONE, KEPT_SECONDS = (("train", "mujoco float64 32"),), 60
DRY = (
    ("correct", "cartpole"),
    ("speed", "cartpole float32 4,8"),
    ("brax", ""),
    ("train", "mjx float32 8"),
    ("together", "mjx float32 8"),
    ("speed", "ant float32 2"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0, help="time for all rows (8)")
    parser.add_argument(
        "--jobs", type=int, default=max((os.cpu_count() or 2) // 2, 1), help="processes at a time (half the cores)"
    )
    parser.add_argument("--dry", action="store_true", help="rehearse on the CPU with tiny sizes")
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS, help="file of the rows")
    parser.add_argument("--table", action="store_true", help="run nothing, write docs/gpu.md from the rows")
    parser.add_argument("--one", nargs=2, metavar=("KIND", "ARGUMENT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        from gpu_rows import work

        work(args.one[0], args.one[1], args.dry)
        return
    if args.table:
        from gpu_page import PAGE, page

        PAGE.write_text(page(json.loads(args.out.read_text())))
        return
    Run(args).all()


class Run:
    """All pieces of work, and the rows that they told."""

    def __init__(self, args: argparse.Namespace):
        self.args, self.began, self.rows, self.lock = args, time.perf_counter(), [], threading.Lock()
        self.out = pathlib.Path(tempfile.mkdtemp()) / "gpu.json" if args.dry else args.out
        self.folder = tempfile.mkdtemp()

    def passed(self) -> float:
        return time.perf_counter() - self.began

    def all(self) -> None:
        until = 60 * self.args.minutes
        if self.args.dry:
            self.pieces(DRY, until)
        else:
            self.pieces(WORK, until / 2)
            self.pieces(TRAININGS, until - KEPT_SECONDS)
            self.pieces(ALONE, until)
        print(f"{len(self.rows)} rows in {self.passed():.0f} s: {self.out}")

    def pieces(self, work, until: float) -> None:
        with concurrent.futures.ThreadPoolExecutor(self.args.jobs) as pool:
            list(pool.map(lambda piece: self.piece(piece[0], piece[1], until), work))

    def piece(self, kind: str, argument: str, until: float) -> None:
        left = until - self.passed()
        if left < 10:
            self.add({"kind": kind, "argument": argument, "left_out": "no time left"})
            return
        for row in child(kind, argument, left, self.args.dry, self.folder):
            self.add(row)

    def add(self, row: dict) -> None:
        with self.lock:
            row["at_second"] = round(self.passed(), 1)
            self.rows.append(row)
            print(line(row), flush=True)
            save(self.out, self.args, self.rows, self.passed())


def save(out: pathlib.Path, args: argparse.Namespace, rows: list[dict], seconds: float) -> None:
    names = ("mujoco", "mujoco-mjx", "jax", "jaxlib", "equinox", "lineax", "numpy", "brax")
    versions = {"python": platform.python_version()}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    found = {"command": f"python benchmarks/gpu.py --minutes {args.minutes:g}", "dry": args.dry, "versions": versions}
    devices = sorted({row["device"] for row in rows if "device" in row})
    out.parent.mkdir(parents=True, exist_ok=True)
    waiting = out.with_suffix(".part")
    waiting.write_text(
        json.dumps(found | {"devices": devices, "seconds": round(seconds, 1), "rows": rows}, indent=1) + "\n"
    )
    waiting.replace(out)


def child(kind: str, argument: str, seconds: float, dry: bool, folder: str):
    """Rows of a process of its own, as they come; it ends after `seconds`."""
    command = [sys.executable, __file__, "--one", kind, argument, *(["--dry"] if dry else [])]
    environment = {**os.environ, "DSO_BENCHMARK_LOCK": f"{folder}/lock", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    if dry:
        flags = "--xla_backend_optimization_level=0"
        environment |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()}
    began, told, lines = time.perf_counter(), 0, queue.Queue()
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert process.stdout is not None
        stream = process.stdout

        def hear() -> None:
            for text in stream:
                lines.put(text)
            lines.put(None)

        threading.Thread(target=hear, daemon=True).start()
        while True:
            try:
                text = lines.get(timeout=max(seconds - (time.perf_counter() - began), 0.01))
            except queue.Empty:
                process.kill()
                yield {
                    "kind": kind,
                    "argument": argument,
                    "left_out": f"ended after {seconds:.0f} s, {told} row(s) before",
                }
                return
            if text is None:
                break
            if text.startswith('{"kind"'):
                told += 1
                yield json.loads(text)
        if process.wait():
            errors.seek(0)
            said = [text.strip() for text in errors.read().splitlines() if text.strip()]
            yield {
                "kind": kind,
                "argument": argument,
                "left_out": f"failed: {said[-1][:300] if said else process.returncode}",
            }


def line(row: dict) -> str:
    shown = {key: f"{value:.4g}" if isinstance(value, float) else value for key, value in row.items()}
    return f"{row['kind']:8} " + ", ".join(
        f"{key} {value}" for key, value in shown.items() if key not in ("kind", "device")
    )


if __name__ == "__main__":
    main()
