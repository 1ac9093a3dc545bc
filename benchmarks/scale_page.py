"""docs/scale.md and its figure from the points of benchmarks/scale.py."""

import pathlib

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE, FIGURE = ROOT / "docs" / "scale.md", ROOT / "benchmarks" / "results" / "scale.png"
AXES = {
    "length": "samples of the log",
    "parameters": "free numbers",
    "horizon": "steps of the rollout",
    "weights": "numbers of the policy",
    "devices": "virtual devices",
}


def draw(rows: list[dict]) -> None:
    """The figure: seconds above, memory below, one column a curve."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    curves = [curve for curve in AXES if curve in {row["curve"] for row in rows if "seconds" in row}]
    if not curves:
        return
    figure, axes = pyplot.subplots(2, len(curves), figsize=(3.2 * len(curves), 5.6), squeeze=False)
    for column, curve in enumerate(curves):
        for line, (key, label) in enumerate((("seconds", "seconds of the processor"), ("megabytes", "memory [MB]"))):
            axis = axes[line][column]
            for what in dict.fromkeys(row["what"] for row in rows if row["curve"] == curve):
                points = [(r["size"], r[key]) for r in rows if own(r, curve, what) and key in r]
                if points:
                    axis.loglog(*zip(*sorted(points), strict=True), marker="o", label=what)
            if not axis.lines:
                axis.set_axis_off()
                continue
            if curve == "devices":
                axis.set_xticks([r["size"] for r in rows if own(r, curve, "train")], minor=False)
                axis.xaxis.set_major_formatter("{x:.0f}")
                axis.xaxis.set_minor_formatter("")
            axis.set_xlabel(AXES[curve])
            axis.grid(alpha=0.3, which="both")
            axis.legend(fontsize=7)
            if column == 0:
                axis.set_ylabel(label)
    figure.tight_layout()
    figure.savefig(FIGURE, dpi=110)
    pyplot.close(figure)


def own(row: dict, curve: str, what: str) -> bool:
    return row["curve"] == curve and row["what"] == what and "seconds" in row


def write(rows: list[dict]) -> None:
    """The page."""
    lines = [
        "# Time and memory against size",
        "",
        "`python benchmarks/scale.py`; `--table` writes this page and the figure again. Seconds are those of the processor,",
        "all threads together, on a machine with other work; memory is what the work adds to the process.",
        "",
        "![Seconds and memory against size](../benchmarks/results/scale.png)",
        "",
        "| curve | what | size | seconds | wall s | MB |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        if "left_out" in row:
            lines.append(f"| {row['curve']} | {row['what']} | {row['size']:,.0f} | {row['left_out']} | | |")
            continue
        memory = f"{row['megabytes']:,.1f}" if "megabytes" in row else ""
        size = row["numbers"] if row["curve"] == "weights" else row["size"]
        lines.append(
            f"| {row['curve']} | {row['what']} | {size:,.0f} | {row['seconds']:.3g} | {row['wall_seconds']:.3g} | {memory} |"
        )
    missing = [curve for curve in AXES if curve not in {row["curve"] for row in rows}]
    lines += [
        "",
        "Time and memory grow in proportion to a log's length and to the free numbers. A text file is read in pieces, of which",
        "`dso convert` keeps the characters of each cell; a log in HDF5 is read whole, as float64.",
        "",
        "With checkpoints the reverse pass through 10^4 steps needs the memory of the plain one through about 1,500.",
        "A step of a training by 10^5 weights costs 2.1 times one by 10 on C MuJoCo, and 3.2 times on MJX.",
        "",
        "Virtual devices share the cores of one CPU, so seconds of the processor show what sharing costs: programs that wait",
        "for each other, and sums that are exchanged. The work itself is the same. A step as small as this one, 64 windows of",
        "a cart-pole in 50 ms, is mostly the starting of small programs, once on every device.",
    ]
    if missing:
        lines += ["", f"Not measured yet: {', '.join(missing)}; `python benchmarks/scale.py {' '.join(missing)}` does."]
    PAGE.write_text("\n".join(lines) + "\n")
