"""A cost that a user writes in Python."""

import dataclasses
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dso_robotics.costs.kind import COSTS, MotionCost, Scope
from dso_robotics.costs.task import Function, Term
from dso_robotics.errors import DsoError
from dso_robotics.table import File, key


@COSTS.register("python")
@dataclasses.dataclass(frozen=True, kw_only=True)
class PythonCost(MotionCost):
    """Any JAX function of a `robot.scene.Scene` that gives one number."""

    file: File = key("Python file", example="costs.py")
    function: str = key("name of the function in it", "cost")

    def term(self, scope: Scope) -> Term:
        """See `MotionCost`."""
        return Function(_function(Path(self.file), self.function))


def _function(path: Path, name: str) -> Callable[..., Any]:
    if not path.is_file():
        raise DsoError(f"{path}: there is no such Python file.")
    spec = importlib.util.spec_from_file_location(f"dso_cost_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise DsoError(f"{path}: importing it failed: {type(error).__name__}: {error}.") from error
    if not callable(getattr(module, name, None)):
        raise DsoError(f"{path}: it has no function '{name}'; define `def {name}(scene)` that gives one number.")
    return getattr(module, name)
