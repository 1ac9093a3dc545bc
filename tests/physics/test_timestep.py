"""A model in which no time passes is refused by whatever reads it."""

import mujoco
import pytest

from dso_robotics.cli import main
from dso_robotics.errors import DsoError
from dso_robotics.physics.model import load

MODEL = """<mujoco><option timestep="{}"/><worldbody><body><joint name="j"/><geom size="0.1"/></body></worldbody>
<actuator><motor name="m" joint="j" ctrlrange="-1 1"/></actuator></mujoco>"""


@pytest.mark.parametrize("timestep", ["0", "-0.01"])
def test_a_time_step_must_be_positive(tmp_path, timestep, capsys):
    path = tmp_path / "still.xml"
    path.write_text(MODEL.format(timestep))
    with pytest.raises(DsoError, match=r"still\.xml: its <option timestep> is"):
        load(path)
    with pytest.raises(DsoError, match="timestep"):
        load(mujoco.MjSpec.from_string(MODEL.format(timestep)))
    for command in (("simulate", "--out", str(tmp_path / "log.h5"), "--seconds", "0"), ("parameters",), ("check",)):
        assert main([command[0], str(path), *command[1:]]) == 2
        assert "positive one, such as 0.002" in capsys.readouterr().err
