"""`dso check` as a user runs it."""

import pytest

from dso_robotics.cli import main

DROP = """
<mujoco>
  <option timestep="0.002"/>
  <worldbody>
    <geom name="floor" type="plane" size="5 5 0.1"/>
    <body name="ball" pos="0 0 0.12">
      <joint name="x" type="slide" axis="1 0 0"/> <joint name="z" type="slide" axis="0 0 1" damping="0.1"/>
      <geom name="ball" size="0.1" mass="1"/>
    </body>
    <body name="far" pos="3 0 0"><joint name="spin" axis="0 0 1"/><geom name="far" size="0.1" pos="0 0 1" mass="1"/></body>
  </worldbody>
  <actuator><motor name="push" joint="x"/><motor name="turn" joint="spin"/></actuator>
</mujoco>
"""


@pytest.fixture
def drop(tmp_path):
    path = tmp_path / "drop.xml"
    path.write_text(DROP)
    return path


@pytest.mark.mjx
def test_the_overview_names_engines_and_contents(models, capfd):
    assert main(["check", str(models / "two_joint_arm.xml")]) == 0
    out = capfd.readouterr().out
    assert "2 (2 hinge), 2 degrees of freedom" in out
    assert out.count(": supported") == 2
    assert "warp" not in out


@pytest.mark.mjx
def test_a_model_the_differentiable_engine_refuses_is_no_error(drop, capfd):
    drop.write_text(DROP.replace('timestep="0.002"', 'timestep="0.002" noslip_iterations="3"'))
    assert main(["check", str(drop), "--gradients"]) == 0
    out = capfd.readouterr().out
    assert "not supported" in out
    assert "set it to 0" in out
    assert "No derivatives to check" in out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["nothere.xml"], ["nothere.xml", "no such model file"]),
        (["MODEL", "--states", "0"], ["--states 0", "at least 1"]),
    ],
)
def test_bad_input_gives_status_2_and_a_cure(drop, capfd, options, words):
    assert main(["check", *(str(drop) if word == "MODEL" else word for word in options)]) == 2
    text = capfd.readouterr().err
    assert text.startswith("dso: ")
    for word in words:
        assert word in text


@pytest.mark.mjx
@pytest.mark.slow
def test_gradients_and_refinement_of_a_ball_that_lands(drop, capfd):
    assert main(["check", str(drop), "--gradients", "--refine", "--states", "6"]) == 0
    out = capfd.readouterr().out
    assert "LARGE" not in out
    zero = next(line for line in out.splitlines() if line.startswith("exactly zero"))
    assert zero.startswith("exactly zero on every state: body_ipos.")  # all joints slide, or turn about the centre
    assert "'far' touched nothing" in out
    table = [
        line.split()
        for line in out.splitlines()
        if line.strip().startswith(("0.002 ", "0.001 ", "0.0005 ", "0.00025 "))
    ]
    assert len(table) == 4
    assert "The derivative by initial velocity " in out
    assert "The derivative by body masses " in out
