"""The house: imports point down only, and the floors that must load fast load no JAX."""

import ast
import pathlib
import subprocess
import sys

from tests.seconds import seconds

PACKAGE = pathlib.Path(__file__).parent.parent / "dso_robotics"
FLOORS = (
    "errors",
    "extras",
    "registry",
    "table",
    "progress",
    "core",
    "physics",
    "parameters",
    "data",
    "robot",
    "costs",
    "studies",
    "report",
    "public",
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


def test_the_table_of_times_has_files_that_there_are():
    assert seconds()
    assert not [name for name in seconds() if not (PACKAGE.parent / name).exists()]


def test_identifying_with_the_c_engine_loads_no_jax():
    code = "import sys, dso_robotics.studies.identify, dso_robotics.report.identify; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_policy_at_run_time_loads_no_jax():
    code = "import sys, dso_robotics as dso; dso.Policy, dso.Estimator, dso.identify; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_the_package_prints_nothing_and_sets_nothing():
    code = "import dso_robotics, sys; assert not {'jax', 'mujoco', 'numpy'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == done.stderr == ""


def test_only_the_one_loop_takes_steps_of_a_method():
    """A method's `step` takes its state and nothing else; a chain's takes three arguments, an engine's none or keywords."""
    loops = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            called = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "step"
            if called and len(node.args) == 1 and not node.keywords:
                loops.append(str(path.relative_to(PACKAGE)))
    assert loops == ["core/descent.py"]


def test_no_study_has_an_optimiser_of_its_own():
    """Studies choose a method; updates of optimisers are in the core."""
    wrong = []
    for folder in ("studies", "cli", "report", "costs", "data", "parameters"):
        for path in (PACKAGE / folder).rglob("*.py"):
            nodes = ast.walk(ast.parse(path.read_text())) if "optax" in path.read_text() else ()
            updates = (n for n in nodes if isinstance(n, ast.Attribute) and n.attr in ("apply_updates", "update"))
            wrong += [f"{path.relative_to(PACKAGE)}:{node.lineno}" for node in updates]
    assert not wrong


def module_imports(path: pathlib.Path):
    """Modules of the package that a file imports when it is loaded, type checking left out."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("dso_robotics"):
            base = PACKAGE.parent / node.module.replace(".", "/")
            for alias in node.names:
                places = base / f"{alias.name}.py", base.with_suffix(".py"), base / "__init__.py"
                yield next(place for place in places if place.exists())


def test_no_circle_inside_a_floor():
    graph = {path: set(module_imports(path)) for path in PACKAGE.rglob("*.py")}
    done, open_, circles = set(), [], []

    def visit(path):
        if path in open_:
            circles.append([p.name for p in open_[open_.index(path) :]])
        elif path not in done and path in graph:
            open_.append(path)
            for other in graph[path]:
                visit(other)
            open_.pop()
            done.add(path)

    for path in graph:
        visit(path)
    assert not circles
