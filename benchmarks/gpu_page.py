"""docs/gpu.md from the rows of benchmarks/gpu.py."""

import pathlib

PAGE = pathlib.Path(__file__).resolve().parent.parent / "docs" / "gpu.md"
_HEAD = """# On a GPU

`{command}`, {devices}, {versions}.
Rows are in `benchmarks/results/gpu.json`; `python benchmarks/gpu.py --table` writes this page.
"""
# Title, text, kinds of rows, and columns: heading and key.
_SECTIONS = (
    (
        "Correctness",
        "Errors of one step against C MuJoCo in float64, over random states.",
        ("correct",),
        {
            "model": "model",
            "precision": "precision",
            "states": "states",
            "largest error of the state": "state_largest",
            "median of the state": "state_median",
            "largest error of the derivative": "derivative_largest",
            "median of the derivative": "derivative_median",
        },
    ),
    (
        "Speed",
        "Rollouts of random controls; a step is one of the physics.",
        ("speed",),
        {
            "model": "model",
            "precision": "precision",
            "program": "engine",
            "what": "what",
            "batch": "batch",
            "steps/s": "steps_per_second",
            "compiled in s": "compile_seconds",
            "memory, bytes": "memory_bytes",
        },
    ),
    (
        "Training",
        "Cost of an episode on C MuJoCo against time, compiling included.",
        ("train", "together"),
        {
            "study": "study",
            "precision": "precision",
            "environments": "environments",
            "seconds": "seconds",
            "environment steps": "environment_steps",
            "cost of an episode": "episode_cost",
        },
    ),
    ("Brax", "PPO on the same physics.", ("brax",), {"seconds": "seconds", "result": "result"}),
)


def page(found: dict) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    lines = [_HEAD.format(command=found["command"], devices=", ".join(found["devices"]), versions=versions)]
    for title, text, kinds, columns in _SECTIONS:
        lines += section(title, text, [r for r in found["rows"] if r["kind"] in kinds and "left_out" not in r], columns)
    missing = [row for row in found["rows"] if "left_out" in row]
    names = [f"{row['kind']} {row.get('argument', row.get('model', ''))}".strip() for row in missing]
    if missing:
        lines += ["## Left out", ""]
        lines += [*(f"- {name}: {row['left_out']}" for name, row in zip(names, missing, strict=True)), ""]
    return "\n".join(lines)


def section(title: str, text: str, rows: list[dict], columns: dict[str, str]) -> list[str]:
    if not rows:
        return []
    lines = [f"## {title}", "", text, "", f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    return [*lines, *(f"| {' | '.join(shown(row.get(key)) for key in columns.values())} |" for row in rows), ""]


def shown(value) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value or "")
