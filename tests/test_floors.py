"""The house: imports point down only, and the floors that must load fast load no JAX."""

import ast
import pathlib
import subprocess
import sys

PACKAGE = pathlib.Path(__file__).parent.parent / "dso_robotics"
FLOORS = (
    "errors",
    "registry",
    "table",
    "core",
    "physics",
    "parameters",
    "data",
    "robot",
    "costs",
    "studies",
    "report",
    "cli",
)


def imports(path: pathlib.Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("dso_robotics."):
            yield node.module.split(".")[1], node.lineno
        elif isinstance(node, ast.Import):
            for name in node.names:
                if name.name.startswith("dso_robotics."):
                    yield name.name.split(".")[1], node.lineno


def test_imports_point_down():
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if part not in FLOORS:
            continue
        for floor, line in imports(path):
            if FLOORS.index(floor) > FLOORS.index(part):
                wrong.append(f"{path.relative_to(PACKAGE)}:{line} imports {floor}")
    assert not wrong
    assert {p.name.removesuffix(".py") for p in PACKAGE.iterdir() if p.name[0] != "_"} <= {*FLOORS}


def test_no_file_has_two_subjects():
    long = {str(p): n for p in PACKAGE.rglob("*.py") if (n := len(p.read_text().splitlines())) > 400}
    assert not long


def test_identifying_with_the_c_engine_loads_no_jax():
    code = "import sys, dso_robotics.studies.identify, dso_robotics.report.identify; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_the_package_prints_nothing_and_sets_nothing():
    code = "import dso_robotics, sys; assert not {'jax', 'mujoco', 'numpy'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == done.stderr == ""
