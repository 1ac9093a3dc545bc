"""Results of benchmarks hold the commands that made them."""

import importlib.util
import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = """import pathlib, sys
from provenance import begun
path = pathlib.Path(sys.argv[1])
path.write_text(__import__("json").dumps(begun(path, {"rows": []})))
"""


def run(folder, *options):
    """A benchmark that begins its result twice and measures nothing."""
    script = folder / "small.py"
    script.write_text(SCRIPT)
    path = folder / "small.json"
    for _ in range(2):
        place = {"PYTHONPATH": str(ROOT / "benchmarks"), "PYTHONDONTWRITEBYTECODE": "1"}
        subprocess.run([sys.executable, str(script), str(path), *options], check=True, env=place)
    return json.loads(path.read_text())


def test_a_result_names_every_command_once(tmp_path):
    first = run(tmp_path)
    place = f"python {tmp_path}/small.py {tmp_path}/small.json"
    assert first == {"command": place, "rows": []}
    assert run(tmp_path, "--part", "two words") == {"command": f"{place}; {place} --part 'two words'", "rows": []}


def test_what_made_older_parts_is_said_not_to_be_known(tmp_path):
    (tmp_path / "small.json").write_text('{"old": 1}')
    found = run(tmp_path)
    assert found["command"] == f"older parts: not kept; python {tmp_path}/small.py {tmp_path}/small.json"
    assert found["old"] == 1


def test_a_command_is_told_as_it_is_typed_in_the_checkout(monkeypatch):
    spec = importlib.util.spec_from_file_location("provenance", ROOT / "benchmarks" / "provenance.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    typed = ["/usr/bin/python3", "-m", "benchmarks.posterior", "--out", str(ROOT / "benchmarks" / "results")]
    monkeypatch.setattr(sys, "orig_argv", typed)
    assert made.command() == "python -m benchmarks.posterior --out benchmarks/results"
