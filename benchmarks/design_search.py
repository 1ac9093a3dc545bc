"""The reaching arm on C MuJoCo for searches without gradients: episodes of a network policy, and CMA-ES."""

import copy
import os
import time
from collections.abc import Iterator

import mujoco
import numpy as np

HIDDEN = 16
INPUTS, OUTPUTS = 6, 2
WEIGHTS = (INPUTS + 1) * HIDDEN + (HIDDEN + 1) * OUTPUTS


class Arm:
    """Costs of episodes as the study has them. Numbers z are those of the study's design tables, in their order.

    Everything but the policy is taken from the task that dso builds of the study: model, costs' numbers, start, times.
    """

    def __init__(self, task, seed: int):
        mechanism = task.chain.mechanism
        assert mechanism is not None
        self.task, self.mechanism = task, mechanism
        self.rng, self.steps, self.episode = np.random.default_rng(seed), 0, task.steps
        place, effort = task.study.cost["place"], task.study.cost["effort"]
        self.target, self.scale = np.array(place["target"]), place["scale"]
        self.smooth, self.effort = place.get("smooth", 0.05), effort["weight"]
        self.spread, self.scratch = task.study.start["spread"], mujoco.MjData(task.robot.mj)
        self._check()

    def model(self, theta: np.ndarray) -> mujoco.MjModel:
        """The arm at unconstrained design numbers (4,), compiled from its exported MJCF as dso's judge has it."""
        from dso_robotics.physics.export import to_mjcf

        fields = self.mechanism.fields(np.asarray(self.mechanism.constrain(theta)))
        xml = to_mjcf(self.task.robot, {name: np.asarray(value) for name, value in fields.items()})
        return mujoco.MjModel.from_xml_string(xml)

    def quick(self, theta: np.ndarray) -> mujoco.MjModel:
        """The same, without the compiler: fields written into a copy of the model, derived constants made anew."""
        from dso_robotics.physics.inertia import principal_fields

        fields = self.mechanism.fields(np.asarray(self.mechanism.constrain(theta)))
        model = copy.copy(self.task.robot.mj)
        for name, value in principal_fields(model, {k: np.asarray(v)[None] for k, v in fields.items()}).items():
            getattr(model, name)[:] = value[0]
        mujoco.mj_setConst(model, self.scratch)
        return model

    def _hand(self, model: mujoco.MjModel, qpos: np.ndarray) -> np.ndarray:
        """x and z (T, 2) of the hand at angles (T, 2)."""
        upper, fore = -model.body("fore").pos[2], -model.site("hand").pos[2]
        first, both = qpos[:, 0], qpos.sum(1)
        x, z = upper * np.sin(first) + fore * np.sin(both), -upper * np.cos(first) - fore * np.cos(both)
        return np.stack([x, z], 1)

    def _check(self) -> None:
        """The hand's place in closed form, and the quick model, against MuJoCo's own."""
        theta = self.mechanism.unconstrain(self.mechanism.initial) + np.array([0.3, -0.2, 0.1, 0.4])
        places = []
        for model in (self.model(theta), self.quick(theta)):
            data = mujoco.MjData(model)
            data.qpos[:], data.ctrl[:] = [0.7, -1.9], [0.5, -0.5]
            mujoco.mj_step(model, data, nstep=20)
            mujoco.mj_forward(model, data)
            assert np.allclose(self._hand(model, data.qpos[None])[0], data.site("hand").xpos[[0, 2]], atol=1e-12)
            places.append(data.qpos.copy())
        assert np.allclose(*places, atol=1e-6)

    def play(self, weights: np.ndarray, model: mujoco.MjModel, *, finer: int = 1) -> float:
        """Cost of one episode from a newly drawn start."""
        h = HIDDEN
        first, offset = weights[: INPUTS * h].reshape(h, INPUTS), weights[INPUTS * h : (INPUTS + 1) * h]
        rest = weights[(INPUTS + 1) * h :]
        last, bias = rest[: h * OUTPUTS].reshape(OUTPUTS, h), rest[h * OUTPUTS :]
        data, step = mujoco.MjData(model), float(model.opt.timestep)
        model.opt.timestep = step / finer
        data.qpos[:] = self.spread * self.rng.standard_normal(2)
        data.qvel[:] = self.spread * self.rng.standard_normal(2)
        qpos, ctrl = np.zeros((self.episode, 2)), np.zeros((self.episode, 2))
        seen = np.zeros(INPUTS)
        for t in range(self.episode):
            seen[:2], seen[2:4], seen[4:] = np.sin(data.qpos), np.cos(data.qpos), data.qvel / 5
            data.ctrl[:] = ctrl[t] = np.tanh(last @ np.tanh(first @ seen + offset) + bias)
            mujoco.mj_step(model, data, nstep=self.task.chain.substeps * finer)
            qpos[t] = data.qpos
        model.opt.timestep = step
        self.steps += self.episode
        gap = np.sum((self._hand(model, qpos) - self.target) ** 2, 1)
        away = (np.sqrt(gap + self.smooth**2) - self.smooth) / self.scale
        cost = float(np.sum(away) + self.effort * np.sum(ctrl**2))
        return cost if np.isfinite(cost) else 1e6


def both(task, seed: int, budget: int, looks: int = 20) -> dict:
    """CMA-ES, with its own defaults, over weights and design numbers in one vector, for `budget` control steps."""
    import cma

    began, arm, judge = time.perf_counter(), Arm(task, seed), Arm(task, seed + 1000)
    numbers = arm.mechanism.unconstrain(arm.mechanism.initial)
    start = np.concatenate([np.zeros(WEIGHTS), numbers])
    search = cma.CMAEvolutionStrategy(start, 0.5, {"seed": seed + 1, "verbose": -9, "maxfevals": 10**9})
    rows: list[tuple] = []
    for best in _search(search, lambda v: arm.play(v[:WEIGHTS], arm.quick(v[WEIGHTS:])), lambda: arm.steps < budget):
        if arm.steps >= (len(rows) + 1) * budget / looks:
            rows.append((arm.steps, _mean(judge, best, 3), time.perf_counter() - began))
    steps, costs, seconds = (list(column) for column in zip(*rows, strict=True))
    best = search.result.xfavorite
    return {
        "seed": seed,
        "cost": _mean(judge, best, 10),
        "quarter_timestep": _mean(judge, best, 10, finer=4),
        "steps": arm.steps,
        "design": _named(arm, best[WEIGHTS:]),
        "history": {"steps": steps, "cost": costs, "seconds": seconds},
        "total": time.perf_counter() - began,
        "cores": len(os.sched_getaffinity(0)),
    }


def design_only(train, initial: np.ndarray, seed: int, generations: int) -> Iterator[tuple[int, np.ndarray, float]]:
    """CMA-ES over unconstrained design numbers; `train(numbers)` is a training's cost. Yields trainings so far and the best."""
    import cma

    search, count = cma.CMAEvolutionStrategy(initial, 0.5, {"seed": seed + 1, "verbose": -9}), 0
    for _ in range(generations):
        asked = search.ask()
        search.tell(asked, [train(numbers) for numbers in asked])
        count += len(asked)
        yield count, np.asarray(search.result.xbest), float(search.result.fbest)


def _search(search, cost, more) -> Iterator[np.ndarray]:
    """Generations while there is more to spend; CMA-ES's own stopping rules are passed over, its budget is the rule here."""
    while more():
        asked = search.ask()
        search.tell(asked, [cost(v) for v in asked])
        yield np.asarray(search.result.xfavorite)


def _mean(arm: Arm, vector: np.ndarray, count: int, finer: int = 1) -> float:
    model = arm.model(vector[WEIGHTS:])
    return float(np.mean([arm.play(vector[:WEIGHTS], model, finer=finer) for _ in range(count)]))


def _named(arm: Arm, numbers: np.ndarray) -> dict[str, float]:
    values = np.asarray(arm.mechanism.constrain(numbers))
    return dict(zip(arm.mechanism.names, map(float, values), strict=True))
