"""A policy as an ONNX model: memory, delayed actions and the clock are inputs and outputs, so the model itself has no state."""

import json
import math
from typing import Any, Literal

import numpy as np

from dso_robotics import __version__
from dso_robotics.extras import require
from dso_robotics.robot.policy_json import policy_table
from dso_robotics.robot.policy_numbers import PolicyNumbers

OPSET, IR = 17, 8
"""Old enough for every runtime of the last years; all operators used are in it for 64 bits too."""
Precision = Literal["float64", "float32"]
_EPISODES, _STEPS = 20, 50


def policy_onnx(numbers: PolicyNumbers, *, source: str, precision: Precision = "float64") -> bytes:
    """The model as the bytes of an .onnx file.

    Inputs, each with a first axis of any length (one row for each robot): qpos, qvel and act, or sensors; task; time [s] (1) if
    the policy sees it; memory; queue (delay, nu), zeros at first; before (nu), the last control, if its rate is limited, home
    at first. Those of length 0 are left out. Outputs: ctrl (nu), next_memory, next_queue, next_before. The metadata hold the
    names, the period and all else that `policy_table` has, without the network.

    Raises:
      MissingExtra: the package onnx is not installed.
    """
    require("onnx", "An ONNX model")
    import onnx

    graph = _Graph(numbers, precision)
    made = onnx.helper.make_model(
        onnx.helper.make_graph(graph.nodes, "policy", graph.inputs, graph.outputs, graph.constants),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR,
        producer_name="dso",
        producer_version=__version__,
        doc_string=source,
    )
    table = policy_table(numbers, source=source)
    del table["network"]
    onnx.helper.set_model_props(made, {name: json.dumps(value) for name, value in table.items()})
    onnx.checker.check_model(made, full_check=True)
    return made.SerializeToString()


class _Graph:
    """Nodes, constants, inputs and outputs."""

    def __init__(self, n: PolicyNumbers, precision: Precision):
        import onnx

        self._onnx: Any = onnx
        self._type = np.dtype(precision)
        self._element = onnx.helper.np_dtype_to_tensor_dtype(self._type)
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self._parts = n.split()
        action, memory = self._decided(n, self._seen(n))
        if n.memory:
            self._output("next_memory", memory, [n.memory])
        if n.delay:
            queue = self._input("queue", [n.delay, len(n.ctrl_names)])
            row = self._op("Unsqueeze", action, self._constant(np.array([1]), np.int64))
            whole = self._op("Concat", queue, row, axis=1)
            self._output("next_queue", self._slice(whole, 1, n.delay + 1), [n.delay, len(n.ctrl_names)])
            action = self._op("Squeeze", self._slice(whole, 0, 1), self._constant(np.array([1]), np.int64))
        ctrl = self._squashed(n, action)
        if n.slow:
            before = self._input("before", [len(n.ctrl_names)])
            step = self._constant(np.where(np.isfinite(n.step), n.step, np.finfo(self._type).max))
            back = self._op("Neg", step)
            moved = self._op("Max", self._op("Min", self._op("Sub", ctrl, before), step), back)
            ctrl = self._op("Add", before, moved)
            self._output("next_before", ctrl, [len(n.ctrl_names)])
        self._output("ctrl", ctrl, [len(n.ctrl_names)], first=True)

    def _squashed(self, n: PolicyNumbers, action: str) -> str:
        """The control of an action, without the limit of its rate."""
        z = self._op("Add", self._op("Mul", action, self._constant(n.gain)), self._constant(n.shift))
        place = self._op("Mul", self._op("Tanh", z), self._constant(n.half))
        return self._op(
            "Where", self._constant(n.limited, np.bool_), self._op("Add", place, self._constant(n.middle)), z
        )

    def _seen(self, n: PolicyNumbers) -> str:
        """The normalised inputs of the network (rows, inputs)."""
        parts = []
        if n.columns:
            parts.append(self._input("sensors", [len(n.columns)]))
        else:
            qpos = self._input("qpos", [n.nq])
            turning = self._gather(qpos, n.turning) if n.turning else ""
            parts += [self._gather(qpos, n.plain)] if n.plain else []
            parts += [self._op("Sin", turning), self._op("Cos", turning)] if n.turning else []
            parts += [self._input(name, [size]) for name, size in (("qvel", n.nv), ("act", n.na)) if size]
        if n.tasks:
            half = (n.task_high - n.task_low) / 2
            away = self._op("Sub", self._input("task", [len(n.tasks)]), self._constant((n.task_high + n.task_low) / 2))
            parts.append(self._op("Div", away, self._constant(np.where(half > 0, half, 1.0))))
        x = self._op("Sub", self._op("Concat", *parts, axis=1), self._constant(n.mean))
        x = self._op("Div", x, self._constant(n.spread))
        return self._op("Concat", x, *self._time(n), axis=1) if n.features else x

    def _time(self, n: PolicyNumbers) -> list[str]:
        time, k = self._input("time", [1]), np.arange(n.features)
        if n.cyclic:
            phase = self._op("Mul", time, self._constant(2 * math.pi / n.clock * (k + 1)))
            return [self._op("Sin", phase), self._op("Cos", phase)]
        away = self._op(
            "Sub", self._op("Mul", time, self._constant(np.array([n.features / n.clock]))), self._constant(k + 0.5)
        )
        return [self._op("Exp", self._op("Mul", self._op("Mul", away, away), self._constant(np.array([-0.5]))))]

    def _decided(self, n: PolicyNumbers, x: str) -> tuple[str, str]:
        """The action before squashing, and the next memory."""
        parts = self._parts
        if not n.memory:
            for matrix, offset in zip(parts[:-2:2], parts[1:-2:2], strict=True):
                x = self._op("Tanh", self._affine(matrix, x, offset))
            return self._affine(parts[-2], x, parts[-1]), ""
        memory = self._input("memory", [n.memory])

        def units(first: int) -> str:
            return self._op(
                "Add", self._affine(parts[first], x, parts[first + 2]), self._times(parts[first + 1], memory)
            )

        new = self._op("Tanh", units(0))
        if n.kind == "gated":
            gate = self._op("Sigmoid", units(3))
            change = self._op("Mul", gate, self._op("Sub", new, memory))
            new = self._op("Add", memory, change)
        w_out, w_direct, offset = parts[-3:]
        return self._op("Add", self._times(w_out, new), self._affine(w_direct, x, offset)), new

    def _affine(self, matrix: np.ndarray, x: str, offset: np.ndarray) -> str:
        return self._op("Add", self._times(matrix, x), self._constant(offset))

    def _times(self, matrix: np.ndarray, x: str) -> str:
        return self._op("MatMul", x, self._constant(matrix.T))

    def _gather(self, x: str, places: Any) -> str:
        return self._op("Gather", x, self._constant(np.array(places), np.int64), axis=1)

    def _slice(self, x: str, begin: int, end: int) -> str:
        ends = [self._constant(np.array([value]), np.int64) for value in (begin, end, 1)]
        return self._op("Slice", x, *ends)

    def _op(self, kind: str, *given: str, **attributes: Any) -> str:
        name = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(self._onnx.helper.make_node(kind, list(given), [name], name=name, **attributes))
        return name

    def _constant(self, value: Any, kind: Any = None) -> str:
        name = f"constant_{len(self.constants)}"
        array = np.ascontiguousarray(value, self._type if kind is None else kind)
        self.constants.append(self._onnx.numpy_helper.from_array(array, name))
        return name

    def _input(self, name: str, shape: list[int]) -> str:
        self.inputs.append(self._onnx.helper.make_tensor_value_info(name, self._element, ["robots", *shape]))
        return name

    def _output(self, name: str, value: str, shape: list[int], *, first: bool = False) -> None:
        self.nodes.append(self._onnx.helper.make_node("Identity", [value], [name], name=name))
        info = self._onnx.helper.make_tensor_value_info(name, self._element, ["robots", *shape])
        self.outputs.insert(0 if first else len(self.outputs), info)


def rounding(numbers: PolicyNumbers, model: bytes) -> float:
    """Largest difference of the model's controls from the policy's, as a part of the controls' half-width.

    In episodes of 50 control steps whose observations are as spread as the training's.
    """
    import onnx
    from onnx.reference import ReferenceEvaluator

    n, rng, worst = numbers, np.random.default_rng(0), 0.0
    graph = onnx.load_from_string(model)
    kind = onnx.helper.tensor_dtype_to_np_dtype(graph.graph.input[0].type.tensor_type.elem_type)
    player, parts = ReferenceEvaluator(graph), n.split()
    sizes = {i.name: [d.dim_value for d in i.type.tensor_type.shape.dim][1:] for i in graph.graph.input}
    for _ in range(_EPISODES):
        memory, queue, task = np.zeros(n.memory), [np.zeros(len(n.ctrl_names))] * n.delay, n.task_first
        held = {name: np.zeros((1, *sizes[name]), kind) for name in ("memory", "queue") if name in sizes}
        held |= {"before": np.asarray(n.home, kind)[None]} if "before" in sizes else {}
        before = n.home
        for step in range(_STEPS):
            given = {
                name: rng.normal(size=sizes[name])
                for name in sizes
                if name not in ("memory", "queue", "before", "task", "time")
            }
            if "sensors" in given:
                given["sensors"] = n.mean[: len(n.labels)] + n.spread[: len(n.labels)] * given["sensors"]
                seen = given["sensors"]
            else:
                seen = n.observe(given["qpos"], given.get("qvel", np.zeros(0)), given.get("act", np.zeros(0)))
            given |= {"task": task, "time": np.array([step * n.period])}
            rows = {name: np.asarray(value, kind)[None] for name, value in given.items() if name in sizes}
            found = dict(zip([o.name for o in graph.graph.output], player.run(None, rows | held), strict=True))
            held = {name: found[f"next_{name}"] for name in held}
            action, memory = n.decide(parts, seen, memory, task, step * n.period)
            played, *queue = [*queue, action]
            before = n.led(played, before)
            worst = max(worst, float(np.abs((found["ctrl"][0] - before) / n.half).max()))
    return worst
