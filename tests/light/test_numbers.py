"""Installed without JAX and beside the newest MuJoCo, the package finds the numbers that MuJoCo 3.17 finds.

`make light` runs this in its own environment and names the Python of the other; elsewhere there is nothing to compare.
"""

import json
import os
import pathlib
import subprocess
import sys

import pytest

PEER = os.environ.get("DSO_PEER_PYTHON")
CHECKOUT = pathlib.Path(__file__).parent.parent.parent


def numbers(python: str, folder: pathlib.Path) -> dict:
    folder.mkdir()
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    script = pathlib.Path(__file__).with_name("bundled.py")
    subprocess.run([python, str(script), str(folder)], cwd=folder, env=environment, check=True)
    return json.loads((folder / "numbers.json").read_text())


def leaves(tree, path=()):
    if isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from leaves(value, (*path, key))
    else:
        yield path, tree


@pytest.mark.skipif(not PEER, reason="make light names the Python to compare with in DSO_PEER_PYTHON")
def test_the_numbers_are_those_of_mujoco_3_17(tmp_path):
    mine, theirs = numbers(sys.executable, tmp_path / "mine"), numbers(str(PEER), tmp_path / "theirs")
    assert mine["mujoco"].startswith("4.")
    assert theirs["mujoco"] == "3.17.0"
    assert not pathlib.Path(mine["package"]).is_relative_to(CHECKOUT / "dso_robotics")
    assert not mine["jax"]
    found, expected = dict(leaves(mine["numbers"])), dict(leaves(theirs["numbers"]))
    assert found.keys() == expected.keys()
    assert len(found) > 800
    for path, value in expected.items():
        if isinstance(value, float):
            assert found[path] == pytest.approx(value, rel=1e-9, abs=1e-12), path
        else:
            assert found[path] == value, path
