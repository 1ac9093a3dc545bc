"""Test-session set-up: float64 and JAX's persistent compilation cache; the package itself sets neither."""

import os
import pathlib

import jax
import pytest

jax.config.update("jax_enable_x64", True)
_CACHE = os.environ.get("JAX_COMPILATION_CACHE_DIR")
if _CACHE:
    jax.config.update("jax_compilation_cache_dir", _CACHE)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)

MODELS = pathlib.Path(__file__).parent.parent / "models"


@pytest.fixture(scope="session")
def models() -> pathlib.Path:
    """Folder of the MJCF files the repository ships."""
    return MODELS
