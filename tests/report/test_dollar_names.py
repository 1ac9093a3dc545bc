"""Names are shown as they are: a dollar is no mathematics."""

import numpy as np
import pytest

from dso_robotics.cli import main
from dso_robotics.data.log import Log, Rollout, write_log
from dso_robotics.report import canvas

NAMES = (r"$\frac$a", "$x$", r"\$a$", "$", "$$", "a_b^{", r"$\mathdefault{\frac}$", r"$\mathdefault{}\undefined$")


@pytest.mark.parametrize("name", NAMES)
def test_a_dollar_in_a_name_stops_no_figure(name):
    figure = canvas.blank(2.0)
    axis = figure.subplots()
    (line,) = axis.plot([1.0, 2.0], [1e-5, 1e7])
    axis.set_yscale("log")
    axis.set_xticks([1.0, 2.0], labels=[name, "b"])
    canvas.title(axis, name, right=name)
    canvas.label(axis, x=name, y=name)
    canvas.legend(figure, [line], [name])
    figure.text(0.5, 0.5, name)
    assert canvas.picture(figure, "a.png", name).size[0] > 100


def test_a_log_with_dollars_is_plotted(tmp_path):
    values = np.random.default_rng(0).normal(size=(20, len(NAMES)))
    units = (r"$\frac$",) * len(NAMES)
    rollout = Rollout(name=r"$\frac$", time=np.arange(20.0), sensordata=values, sensor_names=NAMES, sensor_units=units)
    write_log(tmp_path / "a.h5", Log("", "", "", (rollout,)))
    assert main(["inspect", str(tmp_path / "a.h5"), "--plot", str(tmp_path / "a.png")]) == 0
    assert (tmp_path / "a.png").stat().st_size > 1000
