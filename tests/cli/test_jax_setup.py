"""Flags for XLA: those that the installed JAX knows, beside those of the user."""

import importlib.metadata
import os

import pytest

from dso_robotics.cli.jax_setup import add_xla_flags, prepare_jax, quick_to_compile

FLAG = "--xla_cpu_use_fusion_emitters=false"


@pytest.mark.parametrize(("version", "known"), [("0.9.2", True), ("0.10.2", True), ("0.11.0", False), ("1.0", False)])
def test_a_flag_that_xla_has_no_longer_is_not_set(monkeypatch, version, known):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    monkeypatch.setenv("XLA_FLAGS", "")
    prepare_jax()
    assert (os.environ["XLA_FLAGS"] == FLAG) == known
    assert bool(quick_to_compile()) == known


def test_without_jax_nothing_is_set(monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    assert quick_to_compile() == ()


def test_flags_of_the_user_stay(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=true --xla_dump_to=x")
    add_xla_flags(FLAG, "--xla_backend_optimization_level=0")
    assert os.environ["XLA_FLAGS"].split() == [
        "--xla_cpu_use_fusion_emitters=true",
        "--xla_dump_to=x",
        "--xla_backend_optimization_level=0",
    ]
