"""Test-session set-up: float64 and JAX's persistent compilation cache; the package itself sets neither.

`make light` runs tests of the C engine where JAX is not installed; tests marked `mjx` are skipped there.
"""

import importlib.util
import os
import pathlib
import sys

import pytest

from dso_robotics.cli.jax_setup import add_xla_flags, quick_to_compile
from dso_robotics.data.log import write_log
from tests.pendulum import PENDULUM, record
from tests.seconds import longest_first

# Tests compile much and run it little: code that is not optimised compiles in half the time.
add_xla_flags(*quick_to_compile(), "--xla_backend_optimization_level=0")

HAS_JAX = importlib.util.find_spec("jax") is not None
if HAS_JAX:
    import jax

    jax.config.update("jax_enable_x64", True)
    _CACHE = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if _CACHE:
        jax.config.update("jax_compilation_cache_dir", _CACHE)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)

# Every compiled function holds memory maps, of which Linux allows a process 65,530; XLA crashes at the next one.
_MAPS, _MANY = pathlib.Path("/proc/self/maps"), 20_000
MODELS = pathlib.Path(__file__).parent.parent / "models"


def pytest_runtest_setup(item: pytest.Item):
    if not HAS_JAX and item.get_closest_marker("mjx"):
        pytest.skip("needs the extra [mjx]")


def pytest_collection_modifyitems(items: list[pytest.Item]):
    longest_first(items)


@pytest.fixture(scope="module", autouse=True)
def forget_compiled():
    """Let go of what earlier files compiled before there is too much of it."""
    yield
    if HAS_JAX and _MAPS.exists() and _MAPS.read_bytes().count(b"\n") > _MANY:
        sys.modules["jax"].clear_caches()


@pytest.fixture(scope="session")
def models() -> pathlib.Path:
    """Folder of the MJCF files the repository ships."""
    return MODELS


@pytest.fixture(scope="session")
def pendulum(tmp_path_factory):
    """Folder with pendulum.xml (its parameters half wrong) and pendulum.h5."""
    folder = tmp_path_factory.mktemp("pendulum")
    (folder / "pendulum.xml").write_text(PENDULUM.format(damping=0.16, frictionloss=0.02, mass=1.0))
    write_log(folder / "pendulum.h5", record(0))
    return folder
