"""The table at the end of a run, as plain text."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dso_robotics.data.split import PART_NAMES
from dso_robotics.report import posterior as posteriors
from dso_robotics.report.quantity import counted, unit

if TYPE_CHECKING:
    from dso_robotics.studies.check import Overview


def identification_table(summary: Mapping[str, Any]) -> str:
    """Parameters with intervals, prediction errors per channel, and warnings, from an identification's summary."""
    blocks = [parameter_block(summary)]
    fit = summary["fit"]
    rows = [("channel", "noise", "fitted runs", "held-out runs", "", "unit")]
    for name, noise in summary["noise"].items():
        train, held = fit["train"].get(name, {}), fit["hold_out"].get(name, {})
        percent = f"{held['nrmse_percent']:.0f}% of spread" if held else ""
        errors = _number(train.get("rmse")), _number(held.get("rmse"))
        rows.append((name, _number(noise["value"]), *errors, percent, noise["unit"]))
    seconds = summary["windows"]["score_seconds"]
    start = "estimated" if "estimated" in summary["windows"]["start"].values() else "measured"
    how = f"open loop over {seconds:g} s from the {start} state (mean of window RMSE)"
    blocks.append(f"prediction error, {how if seconds else 'sample by sample at the recorded states (mean)'}")
    blocks.append(columns(rows, "<>>><<"))
    if base := base_lines(summary):
        blocks[0] += "\n\n" + "\n".join(base)
    blocks[0] += "".join(f"\n\n{text}" for text in posterior_blocks(summary))
    forces = force_rows(summary)
    if forces:
        blocks.append(
            "\nerror of the forces by inverse dynamics (root mean square), beside plain least squares\n"
            + columns(forces, "<>>>><")
        )
    blocks.append(
        f"{state(summary)}: {summary['message']}; {summary['seconds']['total']:.1f} s, "
        f"{summary['simulated_steps']:,} simulated steps, engine {summary['engine']}"
    )
    blocks += [f"note: {text}" for text in summary["warnings"]]
    more = 4 if forces else 3
    tried = "".join(f"{title}\n{columns(rows, '<><')}\n\n" for title, rows in choice_tables(summary))
    return tried + blocks[0] + "\n\n" + "\n".join(blocks[1:more]) + "\n\n" + "\n".join(blocks[more:])


def posterior_blocks(summary: Mapping[str, Any]) -> list[str]:
    """The posterior, and the bands of the prediction; nothing if none was asked for."""
    posterior = summary.get("posterior")
    if not posterior:
        return []
    found = [posteriors.how(posterior)]
    if posterior.get("parameters"):
        found[0] += "\n" + columns(posteriors.parameter_rows(posterior), "<>^<>")
    if rows := posteriors.band_rows(posterior):
        found.append("95% bands of the prediction, and where their variance comes from\n" + columns(rows, "<><>>><"))
    return found


def parameter_block(summary: Mapping[str, Any]) -> str:
    """The physical numbers that were found, with their intervals."""
    rows = [("parameter", "start", "value", "95% interval", "unit", "")]
    for path, p in summary["parameters"].items():
        known = p.get("low95") is not None
        interval = f"{_number(p['low95'])} .. {_number(p['high95'])}" if known else "not known"
        held = "at bound" if p.get("at_bound") else "" if p.get("determined", True) else "not determined"
        rows.append((path, _number(p["initial"]), _number(p["value"]), interval, p["unit"], held))
    return columns(rows, "<>>^<<")


def state(summary: Mapping[str, Any]) -> str:
    """Whether the search of an identification converged, and whether its result is to be believed, in words."""
    if not summary["converged"]:
        return "NOT converged"
    return "converged, but doubtful (see the notes)" if summary.get("doubts") else "converged"


def base_lines(summary: Mapping[str, Any]) -> list[str]:
    """What the data determine of full inertias, by name, and what they do not show."""
    base = summary.get("base_parameters") or {}
    if not base:
        return []
    rows = [("combination that the data determine", "value", "95% interval", "unit")]
    for entry in base["combinations"]:
        interval = f"{_number(entry['low95'])} .. {_number(entry['high95'])}"
        rows.append((entry["name"], _number(entry["value"]), interval, entry["unit"]))
    still = [f"not shown by these data, at the model's value: {', '.join(base['unseen'])}"] if base["unseen"] else []
    return [columns(rows, "<>^<"), *still]


def choice_tables(summary: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, ...]]]]:
    """What `--choose` tried: a title and rows, after a heading, for the window and for the law of friction."""
    choice, found = summary.get("choice") or {}, []
    for what, word in (("window", "window"), ("friction", "friction law")):
        if what not in choice:
            continue
        title = (
            f"{word} by cross-validation in {choice['folds']} folds of the fitted runs: error over "
            f"{choice['score_seconds']:g} s, of the spread"
        )
        rows = [(word, "error", "")]
        for t in choice[what]["tried"]:
            mark = "chosen" if t["label"] == choice[what]["chosen"] else "alike" if t["alike"] else ""
            error = t["error_percent"]
            rows.append((t["label"], "failed" if error is None or error != error else f"{error:.3g}%", mark))
        found.append((title, rows))
    return found


def force_rows(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Rows on the forces of each joint, after a heading: fitted and held-out runs, each beside least squares, and the unit."""
    table = summary.get("torque") or {}
    rows = []
    for joint, train in table.get("train", {}).items():
        held = table.get("hold_out", {}).get(joint, {})
        cells = [_number(row.get(key)) for row in (train, held) for key in ("rmse", "least_squares")]
        rows.append((joint, *cells, train["unit"]))
    heading = ("joint", "fitted runs", "least squares", "held-out runs", "least squares", "unit")
    return [heading, *rows] if rows else []


def training_table(summary: Mapping[str, Any]) -> list[str]:
    """Lines on what a training or a design came to."""
    cost = summary["cost"]
    lines = [summary["message"], method_line(summary), steps_line(summary)]
    if cost["terms"]:
        lines.append(f"at a quarter of the time step: {cost['quarter_timestep']:.4g}")
    lines += [line.rstrip() for line in columns(cost_rows(summary), "<>><").splitlines()]
    for name, row in summary.get("constraints", {}).items():
        told = "met" if row["met"] else f"not met, {row['violation']:.3g} above"
        numbers = f"mean {row['mean']:.4g}, limit {row['limit']:.4g}, {told}; multiplier {row['multiplier']:.4g}"
        lines.append(f"constraint {name}: {numbers}")
    lines += rounding_lines(summary) + motor_lines(summary)
    for block, sources in summary["flow"].items():
        names = [", ".join(cost["terms"]) if source == "rollouts" else source for source in sources]
        lines.append(f"{block}: moved by {', '.join(names) or 'nothing'}")
    if judged := judge_line(summary):
        lines.append(judged)
    if (tried := summary.get("tolerance")) and tried["draws"]:
        lines.append(
            f"over {len(tried['draws'])} draws of the identified numbers an episode costs {tried['mean']:.4g} on average and "
            f"{tried['worst']:.4g} at worst"
        )
    for name, row in summary["parameters"].items():
        bound = "  at bound" if row["at_bound"] else ""
        lines.append(f"{name}: {row['initial']:.4g} -> {row['value']:.4g} {unit(row['unit'])}".rstrip() + bound)
    return lines + [f"note: {text}" for text in summary["warnings"]]


def rounding_lines(summary: Mapping[str, Any]) -> list[str]:
    """Lines on how choices were rounded, and what that lost; none without choices."""
    rounding = summary.get("rounding")
    if not rounding:
        return []
    found = ", ".join(f"{name} {_number(value)}" for name, value in rounding["searched"]["numbers"].items())
    lines = [f"the search found {found}, where an episode costs {_number(rounding['searched']['cost'])}"]
    lines += columns(rounding_rows(summary), "<>><").splitlines()
    after = f" after {rounding['iterations']} more iterations" if rounding["iterations"] else ""
    change = f"{rounding['loss']:+.4g} with the policy of the search, {rounding['loss_after_training']:+.4g} in the end"
    return [line.rstrip() for line in lines] + [f"rounding to {rounding['chosen']['label']}{after}: {change}"]


def rounding_rows(summary: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Rows on the combinations that were tried, after a heading."""
    rows = [("tried", "cost with the policy of the search", "cost after training", "")]
    for one in summary["rounding"]["tried"]:
        words = ["" if one["meets_limits"] else "breaks limits", "chosen" if one["chosen"] else ""]
        rows.append((one["label"], _number(one["cost"]), _number(one["tuned"]), ", ".join(filter(None, words))))
    return rows


def motor_lines(summary: Mapping[str, Any]) -> list[str]:
    """A line on each motor: what it is, and how near the motion is to its limits."""
    lines = []
    for name, row in summary.get("motors", {}).items():
        torque, speed, power = row["torque"], row["speed"], row["power"]
        parts = [
            f"torque up to {_number(torque['peak'])} N m, {_number(torque['rms'])} root mean square "
            f"({100 * torque['rms'] / torque['continuous']:.0f}% of continuous)",
            f"{100 * speed['peak'] / speed['no_load']:.0f}% of no-load speed",
            f"power up to {_number(power['peak'])} W",
        ]
        lines.append(f"motor {name}: {row['label']}; {', '.join(parts)}")
    return lines


def cost_rows(summary: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Rows on the costs of a training, after a heading: name, weight, weighted value, and what the value is of."""
    cost, rows = summary["cost"], [("cost", "weight", "weighted value", "")]
    for part, of in (("terms", "of an episode"), ("supervised", "without a rollout")):
        rows += [(name, _number(cost["weights"][name]), _number(value), of) for name, value in cost[part].items()]
    return rows


def method_line(summary: Mapping[str, Any]) -> str:
    """The method of a training, and why."""
    return f"method: {summary['method']['name']} ({summary['method']['reason']})"


def steps_line(summary: Mapping[str, Any]) -> str:
    """How many control steps a training simulated, if any, and how long it took."""
    seconds, steps = summary["seconds"], summary["environment_steps"]
    told = f"steps of the environment: {steps:,}; " if steps else ""
    return f"{told}time: {seconds['total']:.1f} s, {seconds['compile']:.1f} s of them compiling"


def judge_line(summary: Mapping[str, Any]) -> str:
    """The cost on the robot of [judge] before and after; empty without one, or without costs of the motion."""
    judged = summary.get("judge")
    if judged is None or not summary["cost"]["terms"]:
        return ""
    texts = []
    for costs in (judged["before"], judged["cost"]):
        mean = sum(costs) / len(costs)
        texts.append(f"{mean:.4g} ({min(costs):.4g} to {max(costs):.4g})" if len(costs) > 1 else f"{mean:.4g}")
    many = f"mean of {len(judged['cost'])} episodes" if len(judged["cost"]) > 1 else "one episode"
    return f"cost of an episode on the robot of [judge], {many}: {texts[0]} before, {texts[1]} after"


def estimation_table(summary: Mapping[str, Any]) -> list[str]:
    """The numbers that were learned, lines on how well an estimator predicts each measurement, and warnings."""
    lines = [f"{parameter_block(summary)}\n"] if summary["parameters"] else []
    lines += [
        f"{PART_NAMES[part]:9} {name:24} one step ahead: rms {entry['rmse']:.4g} {entry['unit']}, "
        f"{entry['covered_percent']:.1f}% within 1.96 predicted standard deviations"
        for part, fit in summary["fit"].items()
        for name, entry in fit.items()
    ]
    lines += noise_lines(summary)
    lines += trust_lines(summary)
    lines += smoother_lines(summary)
    state = "converged" if summary["converged"] else "NOT converged"
    return [*lines, f"{state}: {summary['message']}", *(f"warning: {text}" for text in summary["warnings"])]


def noise_lines(summary: Mapping[str, Any]) -> list[str]:
    """The noises of a Kalman filter; nothing for another corrector."""
    if "process" not in summary:
        return []
    rows = [(f"noise of {name}", entry) for name, entry in summary["noise"].items()]
    rows += [(f"noise that drives {name}", entry) for name, entry in summary["process"].items()]
    rows += [(f"drift of the bias of {name}", entry) for name, entry in summary["drift"].items()]
    return [f"{text}: {entry['value']:.3g} {unit(entry['unit'])}" for text, entry in rows]


def smoother_lines(summary: Mapping[str, Any]) -> list[str]:
    """What the smoother did; nothing where none was asked for."""
    lines = []
    for part, row in summary.get("smoother", {}).items():
        texts = [f"{counted(row['runs'], 'run')} in {counted(row['steps'], 'step')}"]
        texts += [f"left out {n} of {name}" for name, n in row["left_out"].items()]
        if row["breaks"]:
            texts.append(f"{counted(row['breaks'], 'break')}, where the motion before does not lead to the one after")
        if row["nees"] is not None:
            texts.append(f"squared error of the state over its variance (NEES/n) {row['nees']:.3g}")
        lines.append(f"{PART_NAMES[part]:9} smoother: {', '.join(texts)}")
        for path, entry in row.get("parameters", {}).items():
            lines.append(f"{PART_NAMES[part]:9} smoother: {path} {_with_interval(entry)}, found with the motion")
    return lines


def _with_interval(entry: Mapping[str, Any]) -> str:
    """A value with its 95% interval and unit."""
    value = f"{entry['value']:.5g}"
    if entry["low95"] is not None:
        value += f" ({entry['low95']:.5g} to {entry['high95']:.5g})"
    return f"{value} {unit(entry['unit'])}".rstrip() + (", at its bound" if entry["at_bound"] else "")


def trust_lines(summary: Mapping[str, Any]) -> list[str]:
    """Whether the errors of an estimator shrink, and whether they are as large as it claims."""
    lines = []
    for part, entry in summary["stability"].items():
        verb = "grow" if not entry["stable"] else "shrink" if (entry["rate"] or 0) < 0 else "stay"
        seconds = entry["seconds_for_factor_10"]
        how = "" if seconds is None or seconds == float("inf") else f" by a factor 10 in {seconds:.3g} s"
        lines.append(
            f"{PART_NAMES[part]:9} observer: errors {verb}{'' if verb == 'stay' else how}, slowest in run {entry['run']!r}"
        )
    part = "hold_out" if "hold_out" in summary["consistency"] else "train"
    entry = summary["consistency"][part]
    state = "" if entry["nees"] is None else f", of the state (NEES/n) {entry['nees']:.3g}"
    aside = "" if part == "hold_out" else "; of fitted runs, because none was held out"
    found = f"of the readings (NIS/n) {_number(entry['nis'])}{state}"
    return [*lines, f"{PART_NAMES[part]:9} squared errors over predicted variance: {found}{aside}"]


def overview_lines(model: str, seen: "Overview") -> list[str]:
    """What a model has and which engine supports it."""
    lines = [f"{model}", "", columns([*seen.contents, *seen.options], "<<"), ""]
    for engine, word in (("mujoco", "C engine (--engine mujoco)"), ("mjx", "differentiable engine (--engine mjx)")):
        reasons = seen.engines[engine]
        lines.append(f"{word}: {'not supported' if reasons else 'supported'}")
        lines += [f"  - {reason}" for reason in reasons]
    lines += ["", *(f"warning: {text}" for text in seen.warnings)] if seen.warnings else []
    return lines


def columns(rows: Sequence[Sequence[str]], align: str) -> str:
    """Rows as aligned columns; `align` has one of < > ^ for each column."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(align))]
    lines = (
        "  ".join(f"{cell:{a}{w}}" for cell, a, w in zip(row, align, widths, strict=True)).rstrip() for row in rows
    )
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
