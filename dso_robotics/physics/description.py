"""The MJCF of a compiled `MjModel`, where MuJoCo still has it, and whether two compiled models are the same robot."""

import pathlib
import tempfile
import warnings
import weakref
from typing import Any

import mujoco
import numpy as np

# What the compiler derives from the rest: a model whose numbers were changed after it was compiled has the old ones.
_DERIVED = {
    "actuator_acc0",
    "actuator_length0",
    "actuator_lengthrange",
    "body_invweight0",
    "body_subtreemass",
    "dof_invweight0",
    "dof_M0",
    "flexedge_invweight0",
    "signature",
    "tendon_invweight0",
    "tendon_length0",
}
_STATISTICS = ("meaninertia", "meanmass", "meansize", "extent", "center")
_CLOSE = {"rtol": 1e-9, "atol": 1e-12, "equal_nan": True}


# Specifications of the models that were compiled here, for as long as these live.
_KNOWN: "weakref.WeakKeyDictionary[mujoco.MjModel, mujoco.MjSpec]" = weakref.WeakKeyDictionary()


def remember(model: mujoco.MjModel, spec: mujoco.MjSpec) -> None:
    """Note what `model` was compiled from, for `description`."""
    _KNOWN[model] = spec


def description(model: mujoco.MjModel) -> mujoco.MjSpec | None:
    """A specification that compiles to `model`, changes made to it after loading included; None where there is none.

    A compiled model does not hold its MJCF. It is known of the models that were loaded here; of others MuJoCo keeps that of the
    one which was last loaded from XML, until another is loaded. What is returned is compiled and compared, name by name and
    number by number, so it is never of another model.
    """
    known = _KNOWN.get(model)
    for spec in (None if known is None else known.copy(), _last_loaded(model)):
        if spec is None:
            continue
        try:
            spec.stat.meaninertia = np.nan  # of no effect on the physics, and about to be given up by MuJoCo
            # MuJoCo's XML has six digits of each number.
            if not same(spec.compile(), model):
                copy_back(spec, model)
            if same(spec.compile(), model):
                return spec
        except (mujoco.FatalError, ValueError):
            continue
    return None


def _last_loaded(model: mujoco.MjModel) -> mujoco.MjSpec | None:
    with tempfile.TemporaryDirectory(prefix="dso-") as folder:
        path = pathlib.Path(folder) / "model.xml"
        try:
            mujoco.mj_saveLastXML(str(path), model)
            return mujoco.MjSpec.from_string(path.read_text("utf-8"))
        except (mujoco.FatalError, ValueError, OSError):
            return None


def copy_back(spec: mujoco.MjSpec, model: mujoco.MjModel) -> None:
    """Write to `spec` what was changed in a model compiled from it; statistics that it leaves to the compiler stay so.

    Raises ValueError for a change that no specification can express.
    """
    kept = {name: np.array(getattr(spec.stat, name)) for name in _STATISTICS}
    spec.compile()
    spec.copy_back(model)
    for name, value in kept.items():
        setattr(spec.stat, name, value if value.ndim else float(value))


def same(one: mujoco.MjModel, other: mujoco.MjModel) -> bool:
    """Whether two compiled models have the same names, sizes, options and numbers, those that the compiler derives left out."""
    return all(_same_fields(a, b) for a, b in ((one, other), (one.opt, other.opt)))


def _same_fields(one: Any, other: Any) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of fields that MuJoCo is about to give up
        for name in dir(one):
            if name.startswith("_") or name in _DERIVED:
                continue
            a: Any = getattr(one, name, None)
            b: Any = getattr(other, name, None)
            if isinstance(a, bytes | int | float):
                if a != b and not (isinstance(a, float) and np.isclose(a, b, **_CLOSE)):
                    return False
            elif isinstance(a, np.ndarray) and (a.shape != np.shape(b) or not np.allclose(a, b, **_CLOSE)):
                return False
    return True
