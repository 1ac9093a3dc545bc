"""Pages name only what there is: commands, options, keys of studies, quantities and names of the package."""

import re
import shlex
import tomllib
from typing import get_args, get_type_hints

import pytest

import dso_robotics as dso
from dso_robotics.costs.kind import COSTS
from dso_robotics.physics.design.map import DESIGN_MAPS
from dso_robotics.studies.declaration import Free
from dso_robotics.studies.estimate_study import EstimateStudy
from dso_robotics.studies.study import IdentifyStudy
from dso_robotics.studies.train_study import TrainStudy
from dso_robotics.table import keys
from dso_robotics.table.wording import is_table
from tests.docs.pages import ROOT, fenced, inline, pages
from website.commands import subparsers

pytestmark = pytest.mark.mjx
COMMANDS = {name: parser for name, (_, parser) in subparsers()}
OPTIONS = {name: {o for a in parser._actions for o in a.option_strings} for name, parser in COMMANDS.items()}
STUDIES = (IdentifyStudy, TrainStudy, EstimateStudy)


def unknown_commands(line):
    """What is wrong with a line of a shell that has `dso` in it."""
    line = line.split("  #")[0]
    for part in re.split(r"&&|;|\||\$\(", line):
        words = part.replace("`", "").split()
        while words and re.match(r"^[A-Z_]+=", words[0]):
            words.pop(0)
        if not words or words[0] != "dso" or len(words) < 2:
            continue
        command = words[1]
        if command.startswith("-"):
            if command not in ("--help", "--version"):
                yield f"dso {command}"
        elif command.isupper() or command[0].isdigit() or command == "...":
            continue
        elif command not in COMMANDS:
            yield f"dso {command}"
        else:
            for word in words[2:]:
                option = re.match(r"\[?(--[a-z][a-z-]*)", word)
                if option and option[1] not in OPTIONS[command] | {"--help"}:
                    yield f"dso {command} {option[1]}"


def test_commands_and_options_are_known():
    wrong = []
    for page, text in pages().items():
        lines = []
        for code in fenced(text, "", "bash", "sh", "text"):
            lines += re.sub(r"\\\n", " ", code).splitlines()
        lines += [code for code in inline(text) if code.startswith("dso ")]
        wrong += [f"{page}: {fault}" for line in lines for fault in unknown_commands(line.strip())]
    assert not wrong


def test_options_within_sentences_are_known():
    scripts = [*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "examples").glob("*.py")]
    known = set().union(*OPTIONS.values()) | {o for s in scripts for o in re.findall(r'"(--[a-z-]+)"', s.read_text())}
    known |= {"--help", "--version"}
    wrong = []
    for page, text in pages().items():
        for code in inline(text):
            option = re.match(r"--[a-z][a-z-]*", code)
            if option and option[0] not in known and "xla" not in code:
                wrong.append(f"{page}: {option[0]}")
    assert not wrong


def test_an_unknown_command_is_found():
    assert list(unknown_commands("dso identfy a.xml")) == ["dso identfy"]
    assert list(unknown_commands("dso identify a.xml log.h5 --fre 'x' --out y")) == ["dso identify --fre"]
    assert not list(unknown_commands("dso identify a.xml log.h5 --free 'x' --out y  # --note"))


def sections(cls):
    """Tables that are keys of a table, and whether several of them have names."""
    for name in keys(cls):
        hint = get_type_hints(cls)[name]
        for one in (hint, *get_args(hint)):
            if is_table(one):
                yield name, one, len(get_args(hint)) == 2 and type(None) not in get_args(hint)
                break


def unknown_keys(table, cls, place=""):
    """Keys of a TOML table that the class does not have."""
    known, inside = keys(cls), {name: (one, several) for name, one, several in sections(cls)}
    for key, value in table.items():
        if key not in known:
            yield f"{place}{key}"
        elif key in inside and isinstance(value, dict):
            one, several = inside[key]
            for name, part in value.items() if several else [(None, value)]:
                if not isinstance(part, dict):
                    yield f"{place}{key}.{name}"
                    continue
                kind = one
                if key == "design" and part.get("kind") not in DESIGN_MAPS:
                    yield f"{place}design.{name}.kind = {part.get('kind')}"
                    continue
                if one.kinds is not None:
                    if part.get("kind") not in one.kinds:
                        yield f"{place}{key}.{name}.kind = {part.get('kind')}"
                        continue
                    kind, part = one.kinds[part["kind"]], {k: v for k, v in part.items() if k != "kind"}
                yield from unknown_keys(part, kind, f"{place}{key}.{f'{name}.' if name else ''}")


def faults(study):
    """What is unknown in a study file or a piece of one, to the command that knows most of it."""
    found = [list(unknown_keys(study, cls)) for cls in STUDIES]
    strange = [sum(key not in keys(cls) for key in study) for cls in STUDIES]
    return (
        found[strange.index(min(strange))]
        if min(strange)
        else min((wrong for wrong, count in zip(found, strange, strict=True) if not count), key=len)
    )


def test_keys_of_studies_are_known():
    wrong = []
    own = {"toml": 0}
    for page, text in pages().items():
        for code in fenced(text, "toml"):
            if "[project" in code or "schema" in code:
                continue
            own["toml"] += 1
            wrong += [f"{page}: {fault}" for fault in faults(tomllib.loads(code))]
    assert not wrong
    assert own["toml"] > 5


def test_an_unknown_key_is_found():
    assert faults({"model": "a.xml", "free": [], "hold_ou": 0.1}) == ["hold_ou"]
    assert faults({"policy": {"hiden": [3]}}) == ["policy.hiden"]
    assert faults({"cost": {"up": {"kind": "square", "quantity": "control", "sale": 1}}}) == ["cost.up.sale"]
    assert faults({"design": {"a": {"kind": "lenth"}}}) == ["design.a.kind = lenth"]


def known_keys():
    """Keys by the name of their table; the empty name has those of the top."""
    found = {"": set()}

    def add(cls, name):
        found.setdefault(name, set()).update(keys(cls))
        for key, one, _ in sections(cls):
            if one.kinds is None:
                add(one, key)

    for cls in STUDIES:
        add(cls, "")
    found["cost"] = {"kind"}.union(*(keys(one) for one in COSTS.values()))
    found["free"] = set(keys(Free))
    return found


def test_tables_and_keys_within_sentences_are_known():
    """`[training] method` and `[training] method = "score"`."""
    known, wrong = known_keys(), []
    for page, text in pages().items():
        for code in inline(text):
            match = re.match(r"^\[([a-z]+)(?:\.[\w.]+)?\](?: ([a-z_]+)(?: = .*)?)?$", code)
            if match and match[1] not in (
                "mjx",
                "logs",
                "parquet",
                "onnx",
                "dev",
                "bench",
                "docs",
                "posterior",
                "view",
                "i",
            ):
                table, key = match.groups()
                if table not in known[""] | {*known} or (key and key not in known.get(table, {key})):
                    wrong.append(f"{page}: {code}")
    assert not wrong


def test_names_of_the_package_are_known():
    wrong = []
    for page, text in pages().items():
        code = "\n".join([*fenced(text, "python"), *inline(text)])
        for name in re.findall(r"\bdso\.([A-Za-z_]+)", code):
            if name not in dso.__all__ and name not in ("toml", "h5"):
                wrong.append(f"{page}: dso.{name}")
    assert not wrong


def test_python_of_the_pages_can_be_read():
    for page, text in pages().items():
        for code in fenced(text, "python"):
            try:
                compile(code, page, "exec")
            except SyntaxError as error:
                pytest.fail(f"{page}: {error}: {error.text}")


def test_shell_of_the_pages_can_be_read():
    for page, text in pages().items():
        for code in fenced(text, "bash"):
            try:
                shlex.split(code, comments=True)
            except ValueError as error:
                pytest.fail(f"{page}: {error}")


def unknown_paths(code, known):
    """Parameter paths and quantities in a piece of code, KIND/NAME/FIELD, whose KIND/FIELD is not known."""
    for path in re.findall(
        r"(?<![\w/.\"<-])(?:joint|body|geom|actuator|sensor|site|tendon|pair|equality)/[\w*?./-]+", code
    ):
        kind, *names, field = path.rstrip(".").split("/")
        if names and f"{kind}/{field}" not in known:
            yield path


def test_paths_and_quantities_within_sentences_are_known():
    from dso_robotics.costs.body_quantity import readers
    from dso_robotics.parameters.family import FAMILIES
    from website.quantities import TOLD

    known = {*FAMILIES, "body/com", "sensor/noise", "body/inertia"} | {f"body/{name}" for name in readers(1)}
    known |= {
        f"{name.split('/')[0]}/{name.split('/')[-1].split(',')[0]}" for name, _ in TOLD.values() if name.count("/") == 2
    }
    # Numbers of designs, and the family that CONTRIBUTING.md makes.
    known |= {"site/y", "site/z", "body/length", "body/radius", "body/scale", "joint/margin"}
    wrong = [
        f"{page}: {path}"
        for page, text in pages().items()
        for code in inline(text)
        for path in unknown_paths(code, known)
    ]
    assert not wrong
    assert list(unknown_paths("joint/*/dampin=0.1", known)) == ["joint/*/dampin"]
