"""The table of designs whose best numbers are known: how far `dso design` and CMA-ES are from them."""

# [m] the lengths and radii with which the curves of the studies were made
KNOWN = {
    "four_bar_path": {"body/crank/length": 0.1, "body/coupler/length": 0.3, "body/rocker/length": 0.2},
    "tendon_finger": {
        "body/proximal/length": 0.05,
        "body/middle/length": 0.04,
        "body/distal/length": 0.03,
        "geom/middle_pulley/radius": 0.0055,
        "geom/end_pulley/radius": 0.004,
    },
}


def table(runs: dict) -> str:
    """A line for every study, tool and number of steps, from the runs of benchmarks/results/design.json."""
    lines = [
        "| study | tool | environment steps | cost, seed by seed | largest error [mm], seed by seed | CPU seconds |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for study, known in KNOWN.items():
        for tool in ("joint", "cma"):
            done = runs.get(study, {}).get(tool, [])
            for name, part in (("as many steps", "equal_steps"), ("", "")):
                rows = [run[part] if part else run for run in done if not part or part in run]
                if not rows:
                    continue
                seconds = " to ".join(dict.fromkeys(f"{t:.0f}" for t in _ends([run["cpu_seconds"] for run in done])))
                cells = [
                    f"`{study}`",
                    f"`{tool}`" + (f", {name}" if name else ""),
                    ", ".join(dict.fromkeys(f"{row['steps']:,}" for row in rows)),
                    ", ".join(f"{row['cost']:.3g}" for row in rows),
                    ", ".join(f"{_away(row['design'], known):.2g}" for row in rows),
                    "" if part else seconds,
                ]
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _ends(values: list[float]) -> tuple[float, float]:
    return min(values), max(values)


def _away(design: dict[str, float], known: dict[str, float]) -> float:
    """Largest error of a number [mm]."""
    return 1e3 * max(abs(design[name] - value) for name, value in known.items())
