"""The report of a training: costs, what they moved, learning curve, an episode on C MuJoCo, the robot before and after."""

from pathlib import Path

import mujoco
import numpy as np
from markupsafe import Markup

from dso_robotics.report.chart import Chart
from dso_robotics.report.glimpse import Glimpse
from dso_robotics.report.page import Charts, write_page
from dso_robotics.report.quantity import number, unit
from dso_robotics.report.state_charts import state_charts
from dso_robotics.report.strip import strip
from dso_robotics.report.study_text import study_text
from dso_robotics.report.table import judge_line, method_line, motor_lines, rounding_lines, rounding_rows, steps_line
from dso_robotics.report.training_charts import episode_charts, learning_charts
from dso_robotics.robot.estimator_space import Space
from dso_robotics.studies import folder as folders
from dso_robotics.studies.flow import ROLLOUTS
from dso_robotics.studies.train import Trained

# Charts of the estimated state that are shown at first.
_FIRST = 6


def write_report(found: Trained, folder: Path, *, video: bool = True, figures: bool = False) -> None:
    """Write report.html, which opens offline, to `folder`. With `video`, and if OpenGL works, it has a film.

    `figures` writes the charts as PNG files to `folder`/figures too, which takes matplotlib some seconds.

    Raises:
      DsoError: the folder is not writable.
    """
    moves = found.task.rolls or bool(found.task.flow.moved.get("policy"))
    with Glimpse(folder, wanted=video and moves, episode=True) as glimpse:
        page = _Page(found, folder, glimpse, moves)
    write_page(folder, "training.html.jinja", page=page, s=found.summary)
    if figures:
        from dso_robotics.report.chart_sheet import write_sheets

        write_sheets(folder / folders.FIGURES, page.sheets)


class _Page:
    """The contents of the template. sheets: all charts, by the name of a PNG file."""

    def __init__(self, found: Trained, folder: Path, glimpse: Glimpse, moves: bool):
        self._found, self.glimpse, self.moves, self.first = found, glimpse, moves, _FIRST
        task, summary = found.task, found.summary
        self.rolls, self.model = task.rolls, Path(task.study.model).name
        noise = "noise" if task.chain.sensing is None else "noise of the actions"
        before, kept = summary["cost"]["first_look"], summary["kept"]["iteration"]
        self.sheets: dict[str, list[Chart]] = {
            "training": learning_charts(found.history, before, kept, rolls=task.rolls, noise=noise),
            "episode": self._episode() if moves else [],
            "estimate": self._states() if found.episodes[0].estimate is not None else [],
        }
        self.charts = Charts(sum(len(chart.lines) + 1 for charts in self.sheets.values() for chart in charts))
        self.learning, self.episode, self.states = (
            [self.charts.add(chart, picture=i < _FIRST) for i, chart in enumerate(charts)]
            for charts in self.sheets.values()
        )
        self.strips = self._strips(folder) if moves else []

    @property
    def opening(self) -> list[str]:
        """How it ended, the method and its reason, the cost on another robot, notes of the study."""
        summary, notes = self._found.summary, self._found.task.notes
        lines = [summary["message"], method_line(summary), steps_line(summary)]
        if self.rolls:
            lines.append(f"cost at a quarter of the time step: {number(summary['cost']['quarter_timestep'])}")
        lines += [judge_line(summary), *notes]
        return [f"{text[0].upper()}{text[1:].rstrip('.')}." for text in lines if text]

    @property
    def warnings(self) -> list[str]:
        """Warnings that are no notes of the study."""
        return [text for text in self._found.summary["warnings"] if text not in self._found.task.notes]

    @property
    def costs(self) -> list[tuple[str, ...]]:
        """Every cost with its kind, what it is a value of, its weight and its weighted value at the end."""
        summary, study, rows = self._found.summary["cost"], self._found.task.study, []
        for name, value in (summary["terms"] | summary["supervised"]).items():
            cost = study.cost[name]
            how = " (balanced)" if cost.weight == "balance" else ""
            of = "an episode" if name in summary["terms"] else "a log" if getattr(cost, "log", None) else "theta"
            weight = number(summary["weights"][name]) + how
            rows.append((name, str(cost.as_dict()["kind"]), of, weight, number(value)))
        return rows

    @property
    def mean(self) -> str:
        """How many episodes a value is the mean of, if more than one."""
        count = len(self._found.episodes)
        return f", mean of {count} episodes" if count > 1 else ""

    @property
    def flow(self) -> list[tuple[str, str, str]]:
        """Which costs move which block of theta."""
        task, motion = self._found.task, list(self._found.task.scene_cost.names)
        every, rows = np.any([*task.flow.masks.values()], axis=0), []
        for block in task.chain.layout.free:
            if not block.size:
                continue
            sources = task.flow.moved.get(block.name, ())
            count = int(every[task.chain.layout.where(block.name)].sum()) if sources else block.size
            texts = [", ".join(motion) if source == ROLLOUTS else source for source in sources]
            rows.append((block.name, str(count), ", ".join(texts) or "nothing; it stays as it started"))
        return rows

    @property
    def parameters(self) -> list[tuple[str, ...]]:
        """Physics, sensors and design: start, value, unit."""
        return [
            (name, number(p["initial"]), number(p["value"]), unit(p["unit"]), "at bound" if p["at_bound"] else "")
            for name, p in self._found.summary["parameters"].items()
        ]

    @property
    def rounding(self) -> list[tuple[str, ...]]:
        """The combinations of choices that were tried; none without choices."""
        return rounding_rows(self._found.summary)[1:] if "rounding" in self._found.summary else []

    @property
    def rounded(self) -> str:
        """What was rounded, to what, and what it lost."""
        *_, last = rounding_lines(self._found.summary)
        rounding = self._found.summary["rounding"]
        numbers = ", ".join(f"{name} = {number(value)}" for name, value in rounding["searched"]["numbers"].items())
        cost = number(rounding["searched"]["cost"])
        return f"The search found {numbers}, where an episode costs {cost}. {last[0].upper()}{last[1:]}."

    @property
    def motors(self) -> list[str]:
        """A sentence on each motor."""
        return [f"{text[0].upper()}{text[1:]}." for text in motor_lines(self._found.summary)]

    @property
    def made(self) -> dict[str, str]:
        """With what the result was made."""
        summary = self._found.summary
        return {
            "model": self.model,
            "engine": f"{summary['engine']} ({summary['engine_reason']})",
            "seed": str(summary["seed"]),
            "dso-robotics": summary["version"],
        }

    @property
    def study(self) -> str:
        """The study, one line for each key that is given, files without their folders."""
        return study_text(self._found.task.study.as_dict())

    def _episode(self) -> list[Chart]:
        task, robot = self._found.task, self._found.task.robot
        positions = {name: int(at) for name, at in zip(self._joints, robot.mj.jnt_qposadr, strict=True)}
        actuators = [name or f"actuator {i}" for i, name in enumerate(robot.names("actuator"))]
        terms = list(task.scene_cost.names) if task.rolls else []
        return episode_charts(self._found.episodes[0], positions, actuators, terms)

    def _states(self) -> list[Chart]:
        model, episode = self._found.task.robot.mj, self._found.episodes[0]
        assert episode.estimate is not None
        nv, space = int(model.nv), Space(model)
        estimate = episode.estimate
        true = np.concatenate([episode.qpos, episode.qvel, estimate[:, model.nq + nv :]], axis=1)
        shown = space.from_pose(model.qpos0, estimate)[:, : 2 * nv]
        error = space.difference(true, estimate)[:, : 2 * nv]
        return state_charts(model, self._joints, episode.time, shown, error, group="episode")

    @property
    def _joints(self) -> list[str]:
        return [name or f"joint {i}" for i, name in enumerate(self._found.task.robot.names("joint"))]

    def _strips(self, folder: Path) -> list[Markup]:
        """Frames of the robot before and after training, twelve moments each."""
        task, before, after = self._found.task, self._found.before, self._found.episodes[0]
        ended = task.robot.mj
        if task.chain.mechanism is not None:
            ended = mujoco.MjModel.from_xml_path(str(folder / folders.MODEL))
        return [
            strip(task.robot.mj, before.time, before.qpos, "before training"),
            strip(ended, after.time, after.qpos, "after training"),
        ]
