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
import contextlib
import dataclasses
import fcntl
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
BATCHES = (4096, 64, 1024, 16384, 65536)
HORIZON = 32
# Kind and argument. What comes first is begun first.
WORK = (
    ("correct", "cartpole"),
    ("train", "mjx float32 4096"),
    ("speed", "cartpole float32 4096,64,1024,16384,65536"),
    ("correct", "hopper"),
    ("speed", "hopper float32 4096,64,1024,16384,65536"),
    ("together", "mjx float32 4096"),
    ("speed", "half_cheetah float32 4096,64,1024,16384,65536"),
    ("speed", "ant float32 4096,64,1024,16384,65536"),
    ("speed", "humanoid float32 4096,64,1024,16384,65536"),
    ("train", "mjx float32 32"),
    ("brax", ""),
    ("correct", "half_cheetah"),
    ("correct", "ant"),
    ("correct", "humanoid"),
    ("speed", "hopper float64 4096"),
    ("speed", "cartpole float64 4096"),
)
# Begun when all of the above has ended, with all cores for itself; so much of the time is kept for it.
ALONE, KEPT_SECONDS = (("train", "mujoco float64 32"),), 75
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
            self.pieces(WORK, until - KEPT_SECONDS)
            self.pieces(ALONE, until)
        print(f"{len(self.rows)} rows in {self.passed():.0f} s: {self.out}")

    def pieces(self, work, until: float) -> None:
        with concurrent.futures.ThreadPoolExecutor(self.args.jobs) as pool:
            list(pool.map(lambda piece: self.piece(*piece, until), work))

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


@contextlib.contextmanager
def alone():
    """Only one process at a time is inside; the value is the seconds that this one waited."""
    with open(os.environ["DSO_BENCHMARK_LOCK"], "w") as file:
        began = time.perf_counter()
        fcntl.flock(file, fcntl.LOCK_EX)
        yield time.perf_counter() - began


def work(kind: str, argument: str, dry: bool) -> None:
    """The rows of one piece of work, on stdout as JSON lines."""
    import jax

    def tell(**row) -> None:
        print(json.dumps({"kind": kind, "device": jax.devices()[0].device_kind, **row}), flush=True)

    if kind == "correct":
        correct(argument, tell, dry)
    elif kind == "speed":
        model, precision, batches = argument.split()
        speed(model, precision, [int(batch) for batch in batches.split(",")], tell, dry)
    elif kind == "brax":
        brax(tell)
    else:
        trained(kind, argument, tell, dry)


def model_of(name: str):
    import mujoco

    path = ROOT / "models" / f"{name}.xml"
    if not path.exists():
        package = importlib.util.find_spec("gymnasium")
        if package is None or not package.submodule_search_locations:
            raise SystemExit(f"{name}: the package gymnasium, which has this model's file, is not installed")
        path = pathlib.Path(package.submodule_search_locations[0]) / "envs" / "mujoco" / "assets" / f"{name}.xml"
    return mujoco.MjModel.from_xml_path(str(path))


def correct(name: str, tell, dry: bool) -> None:
    """Largest errors over random states, relative to the larger of one and the largest number of the state."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from dso_robotics.physics import step as physics
    from dso_robotics.physics.agreement import converged, sample_states
    from dso_robotics.physics.batch import BatchEngine
    from dso_robotics.physics.device import put_model

    source = converged(model_of(name))
    states, ctrls, _ = sample_states(source, 4 if dry else 64)
    nq, nv = source.nq, source.nv
    push = np.random.default_rng(1).normal(size=nv)
    engine, h = BatchEngine(source), 1e-6

    def by_c(move: float) -> np.ndarray:
        starts = states.copy()
        starts[:, nq : nq + nv] += move * push
        return engine.simulate({}, starts, ctrls[:, None]).state[:, 0, : nq + nv]

    want, slope = by_c(0.0), (by_c(h) - by_c(-h)) / (2 * h)
    coarse = (by_c(2 * h) - by_c(-2 * h)) / (4 * h)
    smooth = np.abs(slope - coarse).max(1) < 1e-4 * np.maximum(np.abs(slope).max(1), 1e-6)
    for precision in ("float64", "float32"):
        with jax.enable_x64(precision == "float64"):
            made = put_model(source)

            def following(move, state, ctrl, made=made):
                begin = physics.make_state(made, state[:nq], state[nq : nq + nv] + move * push, state[nq + nv :])
                end = physics.advance(made, begin, ctrl)
                return jnp.concatenate([end.qpos, end.qvel])

            both = jax.jit(
                jax.vmap(lambda s, c, f=following: jax.jvp(lambda m: f(m, s, c), (jnp.zeros(()),), (jnp.ones(()),)))
            )
            began = time.perf_counter()
            got, by = map(np.asarray, both(jnp.asarray(states, precision), jnp.asarray(ctrls, precision)))
            seconds = time.perf_counter() - began
        size = np.maximum(np.abs(want).max(1), 1.0)
        error = np.abs(got - want).max(1) / size
        wrong = np.abs(by - slope).max(1) / np.maximum(np.abs(slope).max(1), 1e-6)
        tell(
            model=name, precision=precision, states=len(states), state_largest=float(error.max()),
            state_median=float(np.median(error)), derivative_largest=float(wrong[smooth].max(initial=0.0)),
            derivative_median=float(np.median(wrong[smooth])) if smooth.any() else None,
            states_with_a_derivative=int(smooth.sum()), compile_and_run_seconds=seconds,
        )  # fmt: skip


def speed(name: str, precision: str, batches: list[int], tell, dry: bool) -> None:
    """Steps a second, forward and with the gradient by all controls; and plain MJX forward."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", precision == "float64")
    from dso_robotics.physics import step as physics
    from dso_robotics.physics.backend import mjx
    from dso_robotics.physics.device import put_model

    model = model_of(name)
    made, horizon = put_model(model), 4 if dry else HORIZON

    def cost(state):
        return jnp.sum(state.qpos**2) + 0.1 * jnp.sum(state.qvel**2)

    def total(ctrls, engine):
        def following(state, ctrl):
            state = physics.advance(made, state, ctrl) if engine == "dso" else mjx.step(made, state.replace(ctrl=ctrl))
            return state, cost(state)

        start = physics.make_state(made) if engine == "dso" else mjx.make_data(made)
        return jax.lax.scan(following, start, ctrls)[1].sum()

    for batch in batches:
        for engine, what in (("dso", "gradient"), ("dso", "forward"), ("mjx", "forward")):
            mean = lambda ctrls, engine=engine: jax.vmap(lambda one: total(one, engine))(ctrls).mean()  # noqa: E731
            program = jax.jit(jax.value_and_grad(mean) if what == "gradient" else mean)
            ctrls = 0.5 * jax.random.normal(jax.random.key(0), (batch, horizon, model.nu))
            said = {
                "model": name,
                "precision": precision,
                "engine": engine,
                "what": what,
                "batch": batch,
                "horizon": horizon,
            }
            try:
                began = time.perf_counter()
                compiled = program.lower(ctrls).compile()
                ready = time.perf_counter() - began
                with alone():
                    found = jax.block_until_ready(compiled(ctrls))
                    seconds = []
                    while len(seconds) < (1 if dry else 3) or sum(seconds) < (0.0 if dry else 1.0):
                        start = time.perf_counter()
                        jax.block_until_ready(compiled(ctrls))
                        seconds.append(time.perf_counter() - start)
            except jax.errors.JaxRuntimeError as error:  # out of memory: larger batches are, too
                tell(**said, left_out=" ".join(str(error).split())[:200])
                continue
            memory = compiled.memory_analysis()
            finite = bool(jnp.isfinite(jnp.asarray(found if what == "forward" else found[0])))
            tell(
                **said, steps_per_second=batch * horizon / min(seconds), compile_seconds=ready, finite=finite,
                memory_bytes=int(memory.temp_size_in_bytes) if memory else None,
            )  # fmt: skip


def trained(kind: str, argument: str, tell, dry: bool) -> None:
    """Cost of an episode on C MuJoCo, each time that the training looks at one."""
    engine, precision, environments = argument.split()
    import jax

    jax.config.update("jax_enable_x64", precision == "float64")
    from dso_robotics.progress.phase import listening
    from dso_robotics.studies.train import train
    from dso_robotics.studies.train_study import TrainStudy

    name = "cartpole_swing_up" if kind == "train" else "everything"
    study = TrainStudy.read(ROOT / "examples" / "studies" / f"{name}.toml")
    size = {"environments": int(environments)} | ({"iterations": 2, "horizon": 4} if dry else {})
    study = dataclasses.replace(study, engine=engine, training=dataclasses.replace(study.training, **size))
    said = {"study": name, "engine": engine, "precision": precision, "environments": size["environments"]}
    seen, first, waited, began = [], [], [], time.perf_counter()

    def passed() -> float:
        return time.perf_counter() - began - sum(waited)

    with contextlib.ExitStack() as until_the_end, tempfile.TemporaryDirectory() as folder:

        def hear(news) -> None:
            if news.stage != "training":
                return
            if not waited:
                waited.append(until_the_end.enter_context(alone()))
            if news.event == "at" and not first:
                first.append(passed())
            if news.event != "at" or news.episode_cost in (None, *seen[-1:]):
                return
            seen.append(news.episode_cost)
            tell(
                **said, seconds=passed(), episode_cost=news.episode_cost, iteration=news.iteration,
                environment_steps=news.steps, first_iteration_seconds=first[0],
            )  # fmt: skip

        with listening(hear):
            summary = train(study, pathlib.Path(folder) / "out").summary
        tell(
            **said, seconds=passed(), environment_steps=summary["environment_steps"], episode_cost=summary["cost"]["total"],
            before=summary["cost"]["before"], compile_seconds=summary["seconds"]["compile"], first_iteration_seconds=first[0],
            judge=summary.get("judge"), message=summary["message"], last=True,
        )  # fmt: skip


def brax(tell) -> None:
    """PPO of Brax in `benchmarks/policy_brax.py`, if there is a Brax that imports beside this JAX."""
    if importlib.util.find_spec("brax") is None:
        tell(left_out="Brax is not installed beside this JAX; published figures are in docs/policies.md, marked so")
        return
    import jax

    try:
        import brax.training.agents.ppo.train  # noqa: F401
    except Exception as error:
        tell(
            left_out=f"the Brax installed does not run with JAX {jax.__version__}: {type(error).__name__}: {error}"[
                :300
            ]
        )
        return
    command = [sys.executable, str(ROOT / "benchmarks" / "policy_brax.py"), "--help"]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    if said.returncode:
        tell(left_out=f"benchmarks/policy_brax.py does not start: {said.stderr.splitlines()[-1][:200]}")
        return
    command[-1:] = ["ppo", "--seed", "0", "--wide", "--cap", "45"]
    began = time.perf_counter()
    with alone():
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = done.stdout.splitlines()[-1:] or ["{}"]
    tell(seconds=time.perf_counter() - began, status=done.returncode, result=found[0][:2000])


if __name__ == "__main__":
    main()
