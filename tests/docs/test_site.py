"""The site builds without a warning, needs no network, and holds what the code says."""

import os
import re
import subprocess
import sys

import pytest

from tests.docs.pages import ROOT

pytestmark = pytest.mark.mjx


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built as `make docs` builds it."""
    place = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(place)]
    env = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    made = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr[-4000:]
    assert "WARNING" not in made.stderr
    return place


@pytest.mark.slow
def test_the_site_needs_no_network(site):
    outside = []
    for page in site.rglob("*.html"):
        text = page.read_text()
        for tag in re.findall(r"<(?:script|link|img|iframe|source)\b[^>]*>", text):
            if "canonical" not in tag and re.search(r'(?:src|href)="(?:https?:)?//', tag):
                outside.append(f"{page.name}: {tag}")
    for sheet in site.rglob("*.css"):
        outside += re.findall(r"url\((?:https?:)?//[^)]*\)", sheet.read_text())
    assert not outside
    assert (site / "search" / "search_index.js").is_file()


@pytest.mark.slow
def test_the_reference_has_what_the_code_has(site):
    commands = (site / "reference" / "commands.html").read_text()
    assert "dso identify" in commands
    assert "--hold-out" in commands
    paths = (site / "reference" / "paths.html").read_text()
    assert "joint/NAME/frictionloss" in paths
    assert "N*m*s/rad" in paths
    methods = (site / "reference" / "methods.html").read_text()
    for name in ("pathwise", "pco", "kalman", "length", "onnx", "tracking"):
        assert f"<code>{name}</code>" in methods
    python = (site / "reference" / "python.html").read_text()
    assert "hold_out" in python
    assert "Raises" in python
    assert "<math" in (site / "theory" / "paper.html").read_text()
    assert (site / "tutorials" / "servo.ipynb").is_file()


def test_every_public_name_is_in_the_reference():
    import dso_robotics as dso
    from website.api import completed

    text = (ROOT / "docs" / "reference" / "python.md").read_text()
    for name in dso.__all__:
        assert re.search(rf"^::: dso_robotics\.[\w.]+\.{name}$", completed(text), re.MULTILINE), name
    assert completed("# Python\n").count(":::") == len(dso.__all__)


def test_no_two_things_of_a_table_of_methods_have_the_same_words():
    from website.methods import page

    for table in page().split("## ")[1:]:
        told = re.findall(r"^\| `[^`]+` \| (.*?) \| `", table, re.MULTILINE)
        assert told
        assert len({*told}) == len(told)
        assert all(len(text.split()) > 2 for text in told)


def test_the_page_of_messages_has_messages_only():
    from website.messages import page

    rows = [row.split(" | ")[0] for row in page().splitlines() if row.startswith("| ")][1:]
    assert any("has no recorded control" in row for row in rows)
    assert not any("lists every key" in row or row == "| devices (docs/devices.md)" for row in rows)


def test_every_family_has_a_unit():
    from website.paths import page

    rows = re.findall(r"^\| `([^`]+)` \| .*? \| (.*?) \| .*? \|$", page(), re.MULTILINE)
    assert len(rows) > 70
    missing = [path for path, unit in rows if unit == "the object's"]
    assert not missing


def test_tables_of_measurements_are_those_of_the_results():
    from website import measured

    for path, text in measured.pages():
        if path.name != "index.md":  # its dates are those of commits
            assert text == path.read_text(), "run python -m website.measured"


def test_a_formula_that_is_no_formula_is_found():
    from website.mathematics import rendered

    assert "<msub>" in rendered(r'<span class="arithmatex">\(x_1 &lt; 2\)</span>')
    for wrong in ("x_", r"\unknown{x}"):
        with pytest.raises(ValueError, match="not understood"):
            rendered(rf'<span class="arithmatex">\({wrong}\)</span>')


def test_docstrings_become_lists_of_arguments():
    from website.docstrings import listed

    text = "Fit E[f](x) to N*m.\n\nmodel: a path.\nlow, high: bounds,\n  or none.\nOthers are `a*b`."
    text += "\n\nRaises:\n  DsoError: no."
    made = listed(text, {"model", "low", "high"})
    assert "- `model`: a path.\n- `low`, `high`: bounds,\n  or none.\n\nOthers are `a*b`." in made
    assert made.startswith("Fit E[f\\](x) to N\\*m.")
    assert made.endswith("Raises:\n  DsoError: no.")


def test_a_page_that_the_navigation_forgot_is_added_to_the_reference():
    from website.hooks import on_config

    config = {"nav": [{"Start": ["index.md"]}, {"Reference": [{"Files": ["files.md"]}]}]}
    on_config(config)
    more = config["nav"][1]["Reference"][-1]["More"]
    assert "policies.md" in more
    assert "files.md" not in more
    assert "index.md" not in more


def test_links_that_leave_the_docs_go_to_copies_in_the_site():
    from website.links import rewritten

    text = "[a](../examples/studies/balance.toml) `[b](../c.md)` [c](files.md#log) [d](../CONTRIBUTING.md) [e](https://a.b)"
    made = rewritten(text, "policies.md", ROOT)
    assert "[a](files/examples/studies/balance.toml.md)" in made
    assert "`[b](../c.md)`" in made
    assert "[c](files.md#log) [d](project/contributing.md) [e](https://a.b)" in made
    assert rewritten("[a](docs/files.md)", "project/contributing.md", ROOT) == "[a](../files.md)"
    assert rewritten("[a](../../examples/studies)", "start/gallery.md", ROOT) == "[a](gallery.md)"
