"""Shipped files are found, and files are written whole or not at all."""

import os
import stat

import pytest

from dso_robotics.data import assets
from dso_robotics.data.assets import asset
from dso_robotics.data.atomic import atomic_file, refuse_existing
from dso_robotics.errors import DsoError


def test_checkout():
    assert asset("datasets/registry.toml").read_text().startswith("#")
    assert asset("models/two_joint_arm.xml").is_file()


def test_installed_wheel(tmp_path, monkeypatch):
    """A wheel has the folders inside the package, where there is no checkout beside it."""
    packed = tmp_path / "site-packages" / "dso_robotics" / "assets"
    (packed / "models").mkdir(parents=True)
    (packed / "models" / "x.xml").touch()
    monkeypatch.setattr(assets, "_ROOTS", (packed, tmp_path / "site-packages"))
    assert asset("models/x.xml") == packed / "models" / "x.xml"
    with pytest.raises(DsoError, match=r"'models/y\.xml' is not in this installation"):
        asset("models/y.xml")


@pytest.mark.parametrize("name", ["registry.toml", "/etc/passwd", "models/../pyproject.toml"])
def test_only_shipped_folders(name):
    with pytest.raises(DsoError, match="starts with datasets or models"):
        asset(name)


def test_a_failure_leaves_the_old_file(tmp_path):
    path = tmp_path / "result.txt"
    path.write_text("old")

    def write():
        with atomic_file(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        write()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["result.txt"]


def test_a_success_replaces_it_with_ordinary_permissions(tmp_path):
    path, plain = tmp_path / "result.txt", tmp_path / "plain.txt"
    plain.touch()
    with atomic_file(path) as temporary:
        assert temporary.parent == path.parent
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_existing_files_are_refused(tmp_path):
    path = tmp_path / "result.txt"
    refuse_existing(path, force=False)
    path.touch()
    refuse_existing(path, force=True)
    with pytest.raises(DsoError, match="--force"):
        refuse_existing(path, force=False)
    with pytest.raises(DsoError, match="is a folder"):
        refuse_existing(tmp_path, force=True)
