"""Dynamical System Optimization for robots, on MuJoCo and MJX.

>>> import dso_robotics as dso                                                # doctest: +SKIP
>>> found = dso.identify("arm.xml", "arm.h5", free="joint/*/damping")         # doctest: +SKIP

Importing the package changes no global state and loads neither JAX nor MuJoCo nor NumPy: each public name loads what it needs
when it is first asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from dso_robotics.data.log import Log as Log
    from dso_robotics.errors import DsoError as DsoError
    from dso_robotics.physics.model import Robot as Robot
    from dso_robotics.physics.model import load as load
    from dso_robotics.public.environment import Environment as Environment
    from dso_robotics.public.estimation import Estimation as Estimation
    from dso_robotics.public.estimation import estimate as estimate
    from dso_robotics.public.excitation import Excitation as Excitation
    from dso_robotics.public.excitation import excite as excite
    from dso_robotics.public.identification import Identification as Identification
    from dso_robotics.public.identification import identify as identify
    from dso_robotics.public.models import check as check
    from dso_robotics.public.models import list_parameters as list_parameters
    from dso_robotics.public.recordings import convert as convert
    from dso_robotics.public.recordings import fetch as fetch
    from dso_robotics.public.recordings import read_log as read_log
    from dso_robotics.public.recordings import simulate as simulate
    from dso_robotics.public.training import Training as Training
    from dso_robotics.public.training import design as design
    from dso_robotics.public.training import train as train
    from dso_robotics.robot.deployed_controller import Controller as Controller
    from dso_robotics.robot.deployed_policy import Policy as Policy
    from dso_robotics.robot.estimator import Estimator as Estimator

_PUBLIC = {
    "DsoError": "errors",
    "Environment": "public.environment",
    "Estimation": "public.estimation",
    "Estimator": "robot.estimator",
    "Excitation": "public.excitation",
    "Controller": "robot.deployed_controller",
    "Identification": "public.identification",
    "Log": "data.log",
    "Policy": "robot.deployed_policy",
    "Robot": "physics.model",
    "Training": "public.training",
    "check": "public.models",
    "convert": "public.recordings",
    "design": "public.training",
    "estimate": "public.estimation",
    "excite": "public.excitation",
    "fetch": "public.recordings",
    "identify": "public.identification",
    "list_parameters": "public.models",
    "load": "physics.model",
    "read_log": "public.recordings",
    "simulate": "public.recordings",
    "train": "public.training",
}
__all__ = [
    "Controller",
    "DsoError",
    "Environment",
    "Estimation",
    "Estimator",
    "Excitation",
    "Identification",
    "Log",
    "Policy",
    "Robot",
    "Training",
    "check",
    "convert",
    "design",
    "estimate",
    "excite",
    "fetch",
    "identify",
    "list_parameters",
    "load",
    "read_log",
    "simulate",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'dso_robotics' has no attribute '{name}'")
    place = _PUBLIC[name]
    from dso_robotics.extras import needing

    with needing(f"dso.{name}"):
        thing = getattr(importlib.import_module(f"dso_robotics.{place}"), name)
    globals()[name] = thing
    return thing


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
