"""Without JAX each command and function that needs it says so, with the cure; the rest work."""

import subprocess
import sys

import pytest

from dso_robotics.cli import main
from dso_robotics.errors import DsoError
from dso_robotics.extras import MissingExtra, needing, require_mjx
from dso_robotics.parameters.path import parse
from dso_robotics.studies.estimate import estimate
from dso_robotics.studies.estimate_study import EstimateStudy
from dso_robotics.studies.identify import identify
from dso_robotics.studies.study import IdentifyStudy

CURE = "pip install 'dso-robotics[mjx]'"
BLOCKED = (
    "import sys; sys.modules.update(dict.fromkeys(('jax', 'equinox', 'jaxtyping', 'lineax', 'optax', 'mujoco.mjx')));"
)


@pytest.fixture
def no_jax(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", None)


@pytest.mark.parametrize(
    "command",
    [
        ["train", "study.toml", "--out", "result"],
        ["train", "study.toml", "--check-gradients"],
        ["design", "study.toml", "--out", "result"],
        ["check", "MODEL", "--gradients"],
        ["check", "MODEL", "--refine"],
        ["identify", "MODEL", "LOG", "--free", "joint/*/damping", "--engine", "mjx", "--out", "result"],
    ],
    ids=lambda command: " ".join(command),
)
def test_a_command_says_what_is_missing(command, no_jax, pendulum, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    files = {"MODEL": str(pendulum / "pendulum.xml"), "LOG": str(pendulum / "pendulum.h5")}
    assert main([files.get(word, word) for word in command]) == 2
    said = capfd.readouterr().err
    assert said.startswith("dso: ")
    assert said.count("\n") == 1
    assert said.rstrip().endswith(CURE)
    assert not (tmp_path / "result").exists()


def test_a_network_is_refused_before_the_search(no_jax, pendulum, tmp_path):
    study = IdentifyStudy(
        str(pendulum / "pendulum.xml"),
        (str(pendulum / "pendulum.h5"),),
        (parse("joint/*/damping"),),
        network={"joints": ["hinge"]},
    )
    with pytest.raises(DsoError, match=r"a \[network\] needs JAX"):
        identify(study, tmp_path / "out")


def test_an_estimator_of_many_numbers_is_refused_before_the_search(no_jax, pendulum, tmp_path):
    study = EstimateStudy(
        str(pendulum / "pendulum.xml"), (str(pendulum / "pendulum.h5"),), corrector="recurrent", units=64
    )
    with pytest.raises(MissingExtra, match=r"engine 'mjx': .* numbers, more than .*dso-robotics\[mjx\]"):
        estimate(study, tmp_path / "out")


def test_the_overview_of_a_model_needs_none(no_jax, models, capfd):
    assert main(["check", str(models / "two_joint_arm.xml")]) == 0
    said = capfd.readouterr().out
    assert "C engine (--engine mujoco): supported" in said
    assert CURE in said


def test_what_needs_mjx_at_its_import_says_so_too():
    code = f"{BLOCKED}\ntry:\n    import dso_robotics.physics.device\nexcept ImportError as error:\n    print(error)"
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert said.startswith("the differentiable engine needs JAX and MJX (mujoco.mjx is not installed)")
    assert said.rstrip().endswith(CURE)


def test_another_failed_import_stays_as_it_is():
    with pytest.raises(ModuleNotFoundError, match="no_such_module") as caught, needing("a test"):
        import no_such_module  # noqa: F401  # pyright: ignore[reportMissingImports]
    assert not isinstance(caught.value, DsoError)


def test_a_failed_import_is_an_import_error_and_ours(no_jax):
    for kind in (DsoError, ImportError):
        with pytest.raises(kind, match="a test needs JAX and MJX"):
            require_mjx("a test")


def test_the_estimator_runs_on_mujoco_numpy_and_h5py_alone(pendulum, tmp_path):
    study = EstimateStudy(str(pendulum / "pendulum.xml"), (str(pendulum / "pendulum.h5"),), iterations=1)
    estimate(study, tmp_path / "estimator")
    code = f"""
import sys
for name in ("equinox", "jax", "jaxtyping", "jinja2", "lineax", "matplotlib", "optax", "PIL", "pooch", "rich", "scipy"):
    sys.modules[name] = None
from dso_robotics.robot.estimator import Estimator
estimator = Estimator.load({str(tmp_path / "estimator")!r})
estimator.reset(measurement=[0.1, 0.0])
print(*estimator.update([0.2], [0.1, 0.0]).qpos)
known = {{"dso_robotics", "mujoco", "numpy", "h5py", "glfw", "OpenGL", "typing_extensions"}} | sys.stdlib_module_names
others = {{name.partition(".")[0] for name, module in sys.modules.items() if module is not None}} - known
assert not {{name for name in others if not name.startswith(("_", "cython"))}}, others
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert abs(float(done.stdout)) < 1
