"""The figure and the tables of docs/identification.md, from results/identify.json only."""

import pathlib

import identify_problems as problems
import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt

BEGIN, END = "<!-- measured: benchmarks/identify.py -->", "<!-- end -->"
PEER = "mujoco.sysid"
TITLES = {p.name: p.title for p in problems.PROBLEMS} | {problems.REAL: "a real two-joint arm (12), 0.8 s windows"}
# What counts as better by more than the scatter of a timing or of a draw.
MARGIN = 1.05


def write(results: dict, root: pathlib.Path) -> None:
    """Draw the figure and write the tables between the markers of the page."""
    draw(results["problems"], root / "benchmarks" / "results" / "identify.png")
    page = root / "docs" / "identification.md"
    text = page.read_text()
    head, rest = text.split(BEGIN)
    _, tail = rest.split(END)
    page.write_text(f"{head}{BEGIN}\n\n{tables(results)}\n{END}{tail}")


def tables(results: dict) -> str:
    """Accuracy, cost, and where a peer is ahead, as Markdown."""
    rows = [
        f"Measured on {results['machine']}.",
        "",
        "| problem (free numbers) | tool | error, worst parameter | median parameter | unfitted run | 95% interval coverage |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    found = results["problems"]
    names = [name for name in TITLES if name in found]
    for name in names:
        for tool, row in found[name].items():
            rows.append(
                f"| {TITLES[name] if tool == 'dso' else ''} | {shown(tool)} | {percent(row.get('error at most'))} | "
                f"{percent(row.get('error median'))} | {ahead(row)} | {percent(row.get('coverage'), 1)} |"
            )
    rows += [
        "",
        "| problem | tool | seconds | with report | peak memory, MiB | dso over this tool's time |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name in names:
        ours = found[name].get("dso", {}).get("wall")
        for tool, row in found[name].items():
            if "wall" not in row:
                continue
            ratio = f"{ours / row['wall']:.2f}" if ours and tool != "dso" else ""
            report = f"{row['wall with report']:.2f}" if "wall with report" in row else ""
            title = TITLES[name] if tool == "dso" else ""
            rows.append(f"| {title} | {shown(tool)} | {row['wall']:.2f} | {report} | {row['peak']:.0f} | {ratio} |")
    rows += [
        "",
        "| aim | measured | |",
        "| --- | --- | --- |",
        *aims(found),
        "",
        "Where a peer is ahead by more than 5%:",
        "",
    ]
    rows += [f"- {line}" for name in names for line in losses(TITLES[name], found[name])] or ["- nowhere"]
    return "\n".join(rows) + "\n"


TIME_AIMS = {"spring_mass": 1.0, "armature": 1.0, "inertia20": 0.5, "inertia60": 0.2, problems.REAL: 0.1}
ERROR_AIMS = ("wrong_start", "delay", "outliers")


def aims(found: dict) -> list[str]:
    """The aims against mujoco.sysid at its recommended settings, and whether they are reached."""
    rows = []
    for name, most in TIME_AIMS.items():
        ours, theirs = (found.get(name, {}).get(tool, {}) for tool in ("dso", PEER))
        if "wall" not in ours or "wall" not in theirs:
            continue
        told = f"{ours['wall'] / theirs['wall']:.2f}"
        if "wall with report" in theirs:
            told += f"; {ours['wall with report'] / theirs['wall with report']:.2f} with both reports"
        rows.append(
            verdict(f"{TITLES[name]}: at most {most:g} of its time", told, ours["wall"] <= most * theirs["wall"])
        )
    for name in ERROR_AIMS:
        tools = found.get(name, {})
        if all("error at most" in tools.get(tool, {}) for tool in ("dso", PEER)):
            share = tools["dso"]["error at most"] / tools[PEER]["error at most"]
            rows.append(verdict(f"{TITLES[name]}: at most a third of its error", f"{share:.2g}", share <= 1 / 3))
    held = {name: tools["dso"]["coverage"] for name, tools in found.items() if "coverage" in tools.get("dso", {})}
    for name, share in held.items():
        rows.append(verdict(f"{TITLES[name]}: interval coverage of 90 to 98%", f"{share:.1%}", 0.9 <= share <= 0.98))
    return rows


def verdict(aim: str, told: str, reached: bool) -> str:
    """One row of the table of aims."""
    return f"| {aim} | {told} | {'reached' if reached else '**missed**'} |"


def losses(title: str, tools: dict[str, dict]) -> list[str]:
    """Every measure in which another tool is better than dso."""
    measures = {
        "error at most": "worst parameter", "error median": "median parameter", "hold-out percent": "unfitted run",
        "wall": "seconds", "wall with report": "seconds with report", "peak": "peak memory",
    }  # fmt: skip
    ours, told = tools.get("dso", {}), []
    for tool, row in tools.items():
        if tool == "dso":
            continue
        for key, words in measures.items():
            # Errors below a billionth are rounding, not information.
            if (
                key in row
                and key in ours
                and ours[key] > MARGIN * row[key]
                and (key[:4] in ("wall", "peak") or ours[key] > 1e-9)
            ):
                told.append(f"{title}: {shown(tool)}, {words}: {row[key]:.3g} against {ours[key]:.3g}")
        if "hold-out rad" in row and "hold-out rad" in ours:
            for joint, theirs, mine in zip(
                ("shoulder", "elbow"), row["hold-out rad"], ours["hold-out rad"], strict=True
            ):
                if mine > theirs:
                    told.append(f"{title}: {shown(tool)}, unfitted runs, {joint}: {theirs:.4f} against {mine:.4f} rad")
        if (
            "coverage" in row
            and "coverage" in ours
            and abs(row["coverage"] - 0.95) < abs(ours["coverage"] - 0.95) - 0.01
        ):
            told.append(
                f"{title}: {shown(tool)}, interval coverage {row['coverage']:.1%} against {ours['coverage']:.1%}"
            )
    return told


def shown(tool: str) -> str:
    """The name of a tool in a table."""
    return f"**{tool}**" if tool == "dso" else tool


def percent(value: float | None, digits: int = 3) -> str:
    """A share (0 to 1) in percent."""
    if value is None:
        return ""
    return (
        "< 1e-9%"
        if value < 1e-11 and digits != 1
        else f"{100 * value:.{digits}f}%"
        if digits == 1
        else f"{100 * value:.{digits}g}%"
    )


def ahead(row: dict) -> str:
    """The error of unfitted runs."""
    if "hold-out rad" in row:
        return " / ".join(f"{v:.4f}" for v in row["hold-out rad"]) + " rad"
    if "hold-out percent" not in row:
        return ""
    return percent(row["hold-out percent"] / 100)


def draw(found: dict, path: pathlib.Path) -> None:
    """Error of the worst parameter, and whole-process time, of every tool on every problem."""
    plt.rcParams |= {"axes.spines.top": False, "axes.spines.right": False, "font.size": 9, "figure.dpi": 130}
    names = [name for name in TITLES if name in found]
    colours = {"dso": "#1f5fa8", PEER: "#d9772b", "no tool": "#888888"}
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 0.45 * len(names) + 1.4), sharey=True)
    labels = ("relative error of the worst parameter", "seconds, whole process without report")
    for axis, key, label in zip(axes, ("error at most", "wall"), labels, strict=True):
        for i, tool in enumerate(colours):
            y = np.arange(len(names)) + 0.22 * (i - 1)
            x = np.array([found[name].get(tool, {}).get(key, np.nan) for name in names], float)
            if key != "wall":
                x = np.where(np.isfinite(x), np.maximum(x, 1e-12), np.nan)
            axis.plot(x, y, "o", ms=5, color=colours[tool], label=tool)
        axis.set_xscale("log")
        axis.set_xlabel(label)
        axis.grid(axis="x", lw=0.4, alpha=0.6)
    axes[0].set_yticks(range(len(names)), [TITLES[name] for name in names])
    axes[0].invert_yaxis()
    axes[1].legend(frameon=False, loc="upper right")
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
