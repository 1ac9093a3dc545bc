"""The rows of benchmarks/gpu.py: each function is one piece of work, which tells rows."""

import contextlib
import dataclasses
import fcntl
import importlib
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
HORIZON = 32


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
    model = mujoco.MjModel.from_xml_path(str(path))
    if model.opt.solver == mujoco.mjtSolver.mjSOL_PGS:  # gymnasium's humanoid; MJX does not have it
        model.opt.solver = mujoco.mjtSolver.mjSOL_NEWTON
    return model


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
        importlib.import_module("brax.training.agents.ppo.train")
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
