"""Tutorials, how-tos and the tour run as they stand, print what the page says they print, and find what is true."""

import re
import shutil

import nbformat
import pytest

from tests.docs.pages import DOCS
from website.notebook import blocks, notebook, running
from website.outputs import executed, outputs, printed, with_outputs

pytestmark = pytest.mark.mjx
PAGES = {page.relative_to(DOCS).with_suffix("").as_posix(): page for page in running(DOCS)}
# These run in every test run, the others in `make long`.
SHORT = ("tutorials/first_identification", "start/install", "howto/units")
# What these print depends on nothing: all of it is compared.
EXACT = ("start/install", "howto/units")
# Installs packages, which would change the machine of the tests.
UNRUN = {"start/install": ["pip install dso-robotics  "]}
# What else a page claims: Python that is run at its end.
TRUE = {
    "tutorials/first_identification": """
assert abs(found.dof_damping[0] - 0.02) < 2e-3
assert abs(found.dof_frictionloss[0] - 0.05) < 5e-3
""",
    "tutorials/identifiable": """
truth = {"joint/pivot/damping": 0.02, "joint/pivot/frictionloss": 0.05, "joint/pivot/armature": 0.004, "body/rod/mass": 0.3}
for path, value in truth.items():
    slow, fast = found_slow.parameters[path], found_fast.parameters[path]
    narrower = 10 if path.endswith(("damping", "armature")) else 1
    assert narrower * (fast["high95"] - fast["low95"]) < slow["high95"] - slow["low95"], path
    assert abs(fast["value"] - value) < 0.1 * value, path
""",
    "tutorials/servo": """
truth = {"actuator/servo/kp": 4, "actuator/servo/kv": 0.12, "actuator/servo/delay": 0.02, "joint/horn/frictionloss": 0.06}
for path, value in truth.items():
    assert abs(found.parameters[path]["value"] - value) < 0.03 * value, path
assert np.sqrt(np.mean((np.array(played(found.model())) - log.sensordata[:, 0]) ** 2)) < 0.01
""",
    "tutorials/estimator": """
assert abs(learned.parameters["sensor/gyro/bias[1]"]["value"] - 0.15) < 0.01
assert np.sqrt(np.mean((speed - run.qvel[:, 0])[100:] ** 2)) < 0.1
""",
    "tutorials/policy": "assert max(map(abs, places[100:])) < 0.3",
    "tutorials/leg": "assert max(height('leg')[1]) > max(height('plain')[1])",
    "tutorials/everything_at_once": """
for path, value in true.items():
    assert abs(trained.parameters[path]["value"] - value) < 0.1 * value, path
assert abs(angles[-1]) < 0.1
assert max(trained.summary["judge"]["cost"]) < 0.02 * min(trained.summary["judge"]["before"])
""",
    "tutorials/your_own": "assert values[-1] < 0.7 * values[0] and trained.policy.act(qpos=[0.0], qvel=[0.0])[0] > 0",
    "howto/backlash": "assert abs(found.parameters['joint/play/range']['value'] - 0.0262) < 1e-3",
    "howto/gradients": "assert abs(slope - difference) < 1e-6 * abs(difference) + 1e-9",
    "howto/filter": """
assert np.abs(c - python).max() < 1e-5
assert abs(python[-100:, 0].std() - np.radians(np.loadtxt("second.csv", delimiter=",", skiprows=1)[-100:, 2]).std()) < 0.05
""",
    "howto/elsewhere": "assert abs(found.parameters['joint/elbow/frictionloss']['value'] - 0.09) < 0.01",
    "excite": """
import subprocess

import dso_robotics as dso

played = "dso simulate arm.xml --controls second.h5 --sensor-noise 0.001 --out second_log.h5"
subprocess.run(played, shell=True, check=True)
found = dso.identify("arm.xml", "second_log.h5", free=["joint/hinge/damping", "body/link/mass"])
for path, value in (("joint/hinge/damping", 0.3), ("body/link/mass", 0.8)):
    assert abs(found.parameters[path]["value"] - value) < 0.02 * value, path
""",
    "posterior": """
low, high = posterior.quantile("body/lower/mass", [0.001, 0.999])
assert low < found.parameters["body/lower/mass"]["value"] < high
""",
    "howto/two_parameters": """
assert not found.parameters['body/rod/mass']['determined']
assert known.parameters['joint/pivot/damping']['determined']
""",
    "howto/units": "assert abs(log['run'].sensordata[3, 0] - 0.0488692) < 1e-6 and abs(log['run'].time[3] - 0.03) < 1e-12",
    "start/tour": "assert 0.085 < found.parameters['joint/elbow/frictionloss']['value'] < 0.115",
}


def _long(name):
    return pytest.param(name, marks=pytest.mark.slow if name in SHORT else pytest.mark.long)


def words(text):
    """Lines of an output without numbers, and without the lines of what a run notes by the way."""
    lines = [line for line in text.splitlines() if not line.startswith(("note:", "warning:"))]
    plain = [re.sub(r"\s+", " ", re.sub(r"[-+]?\d[\d,.e+-]*|nan|inf", "#", line)).strip() for line in lines]
    return [line for line in plain if line]


@pytest.mark.parametrize("name", [_long(name) for name in PAGES])
def test_a_page_runs_and_prints_what_it_says(name, tmp_path):
    page = PAGES[name].read_text()
    if re.search(r"^cc ", page, re.MULTILINE) and shutil.which("cc") is None:
        pytest.skip("there is no C compiler on this machine")
    if name in TRUE:
        page += f"\n```python\n{TRUE[name].strip()}\n```\n"
    ran = executed(page, tmp_path)
    made = [printed(cell) for cell in ran.cells if cell.cell_type == "code"]
    for said, shown in zip(outputs(page), made, strict=True):
        if said:
            assert words(said)[0] == words(shown)[0]
            assert name not in EXACT or words(said) == words(shown)
    for picture in re.findall(r"\]\(\.\./images/([^)]+)\)", page):
        assert (DOCS / "images" / picture).is_file()
        if picture.startswith(f"{PAGES[name].stem}/"):
            assert list(tmp_path.rglob(picture.partition("/")[2]))


def test_every_tutorial_runs_starts_with_a_question_and_ends_with_a_picture():
    tutorials = [page for page in (DOCS / "tutorials").glob("*.md") if page.stem != "index"]
    assert len(tutorials) == 8
    for page in tutorials:
        text = page.read_text()
        assert page in PAGES.values()
        assert re.match(r"# .+\n\n> \*\"", text), f"{page.name}: the first paragraph is the question"
        assert f"](../images/{page.stem}/" in text
        assert f"({page.stem}.ipynb)" in text


def unrun(page):
    """What stands in a box that looks like code and is neither run, nor a file, nor what the code before it printed."""
    found, before, at = [], None, 0
    for block in blocks(page):
        found += re.findall(r"^ *```.*", page[at : block.start], re.MULTILINE)
        printed_it = before is not None and before.runs and not page[before.end : block.start].strip()
        if not block.runs and not (block.language == "text" and printed_it):
            found.append(block.code)
        before, at = block, block.end
    return found + re.findall(r"^ *```.*", page[at:], re.MULTILINE)


def test_every_code_of_tutorials_and_how_tos_runs():
    for name, page in PAGES.items():
        allowed = UNRUN.get(name, [])
        found = unrun(page.read_text())
        assert len(found) == len(allowed), f"{name}: {found}"
        assert all(code.startswith(begin) for code, begin in zip(found, allowed, strict=True)), name


def test_every_page_of_tutorials_and_how_tos_in_the_navigation_runs():
    nav = (DOCS.parent / "mkdocs.yml").read_text()
    section = nav[nav.index("  - Tutorials:") : nav.index("  - Reference:")]
    named = {place.removesuffix(".md") for place in re.findall(r"- ([\w/]+\.md)$", section, re.MULTILINE)}
    # Lists of pages, and one that explains findings and has no code.
    assert named - {*PAGES} == {"tutorials/index", "howto/index", "doubts"}
    assert not blocks((DOCS / "doubts.md").read_text())


def test_code_that_is_not_run_is_found():
    ran = "```python\n1\n```\n\n```text\n1\n```\n"
    assert unrun(ran) == []
    assert unrun(f"{ran}\nText.\n\n```text\nx = 1\n```\n") == ["x = 1\n"]
    assert unrun(f"```toml\na = 1\n```\n{ran}") == ["a = 1\n"]
    assert len(unrun(f"{ran}\n```\ndso x\n```\n\n- a\n\n  ```bash\n  dso x\n  ```\n")) == 4


def test_a_notebook_has_the_code_and_the_files_of_its_page():
    page = 'Text.\n\n```toml title="a.toml"\nx = 1\n```\n\n```bash\ncat a.toml\n```\n\n'
    page += "```text\nx = 1\n```\n\nMore.\n\n```python\n1 + 1\n```\n"
    made = notebook(page)
    nbformat.validate(made)
    sources = [cell.source for cell in made.cells]
    assert sources == ["Text.", "%%writefile a.toml\nx = 1", "%%bash -e\ncat a.toml", "More.", "1 + 1"]
    assert outputs(page) == ["", "x = 1", ""]


def test_outputs_are_put_behind_their_code():
    page = "```python\nprint(3)\n```\n\n```text\n2\n```\n\nNext.\n\n```python\nx = 1\n```\n"
    ran = notebook(page)
    code = [cell for cell in ran.cells if cell.cell_type == "code"]
    code[0]["outputs"] = [nbformat.v4.new_output("stream", name="stdout", text="3\n")]
    assert with_outputs(page, ran) == page.replace("\n2\n", "\n3\n")
    code[0]["outputs"] = []
    assert with_outputs(page, ran) == "```python\nprint(3)\n```\n\nNext.\n\n```python\nx = 1\n```\n"


def test_a_page_that_fails_is_found(tmp_path):
    from nbclient.exceptions import CellExecutionError

    with pytest.raises(CellExecutionError, match="false"):
        executed("```bash\nfalse\necho later\n```\n", tmp_path)
