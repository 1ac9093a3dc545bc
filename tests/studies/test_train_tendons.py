"""Bounds of a design within which a tendon changes its path at once, or begins beyond its range, are refused."""

import numpy as np
import pytest

from dso_robotics.errors import DsoError
from dso_robotics.studies.train_build import build
from dso_robotics.studies.train_study import TrainStudy

ROBOT = """<mujoco><option timestep="0.01"/><default><geom contype="0" conaffinity="0"/></default><worldbody>
  <site name="palm" pos="0 0 -.02"/>
  <geom name="roll" type="cylinder" size=".006 .005" euler="90 0 0"/><site name="side" pos="{side} 0 0"/>
  <body name="link"><joint name="hinge" axis="0 1 0"/><geom type="capsule" fromto="0 0 0 0 0 .04" size=".01"/>
    <site name="hook" pos="0 0 .012"/></body></worldbody>
  <tendon><spatial name="rope" {rope}><site site="palm"/><geom geom="roll" sidesite="side"/>
    <site site="hook"/></spatial></tendon>
  <actuator><motor name="pull" tendon="rope" ctrlrange="-1 1"/></actuator></mujoco>"""
STUDY = """model = "robot.xml"
seconds = 1.0
[start]
position = {{ hinge = {start} }}
[cost.angle]
kind = "square"
quantity = "joint/hinge/position"
{design}
"""
PULLEY = '[design.roll]\nkind = "pulley"\nof = "roll"\nlow = {}\nhigh = {}\n'
LENGTH = '[design.link]\nkind = "length"\nof = "link"\nlow = {}\nhigh = {}\n'


def task(folder, design, *, side=0.02, rope="", start=0.0):
    (folder / "robot.xml").write_text(ROBOT.format(side=side, rope=rope))
    (folder / "study.toml").write_text(STUDY.format(design=design, start=start))
    return build(TrainStudy.read(folder / "study.toml"))


def test_a_pulley_that_could_reach_a_site_of_its_tendon_is_refused(tmp_path):
    task(tmp_path, PULLEY.format(0.004, 0.0119))
    words = (
        r"study\.toml.*radius = 0\.0121 m.*site 'hook' of tendon 'rope' is 12 mm.*within its radius of 12\.1 mm.*narrow"
    )
    with pytest.raises(DsoError, match=words):
        task(tmp_path, PULLEY.format(0.004, 0.0121))


def test_a_limb_that_could_take_a_site_to_the_pulley_is_refused(tmp_path):
    """At half its length the hook is 6 mm from the axis, which is the radius."""
    task(tmp_path, LENGTH.format(0.021, 0.06))
    with pytest.raises(DsoError, match=r"body/link/length = 0\.019 m.*'hook'.*5\.7 mm.*leaves the geom at once"):
        task(tmp_path, LENGTH.format(0.019, 0.06))


def test_two_numbers_that_are_allowed_alone_are_refused_together(tmp_path):
    """A radius of 8 mm fits the limb as it is, and a hook at 7.5 mm the pulley as it is."""
    task(tmp_path, PULLEY.format(0.005, 0.008))
    task(tmp_path, LENGTH.format(0.025, 0.05))
    with pytest.raises(DsoError, match=r"body/link/length = 0\.025 m, geom/roll/radius = 0\.008 m"):
        task(tmp_path, LENGTH.format(0.025, 0.05) + PULLEY.format(0.005, 0.008))


def test_a_pulley_that_could_reach_the_side_site_is_refused(tmp_path):
    """MuJoCo would let the tendon run inside it."""
    task(tmp_path, PULLEY.format(0.005, 0.0079), side=0.008)
    with pytest.raises(
        DsoError, match=r"runs inside geom 'roll' of radius 8\.1 mm and no longer round it.*'side'.*move"
    ):
        task(tmp_path, PULLEY.format(0.005, 0.0081), side=0.008)
    with pytest.raises(DsoError, match=r"runs round geom 'roll' of radius 4 mm and no longer inside it"):
        task(tmp_path, PULLEY.format(0.004, 0.009), side=0.005)


def test_a_tendon_that_would_begin_beyond_its_range_is_refused(tmp_path):
    rope = 'range="0 .055" limited="true"'
    task(tmp_path, LENGTH.format(0.03, 0.06), rope=rope)
    task(tmp_path, LENGTH.format(0.03, 0.12), rope='range="0 .09" limited="true"')
    straight = np.sqrt(0.02**2 - 0.006**2) + np.sqrt(0.036**2 - 0.006**2)
    wrapped = 0.006 * (np.pi - np.arccos(0.006 / 0.02) - np.arccos(0.006 / 0.036))
    words = (
        rf"tendon 'rope' is {straight + wrapped:.4g} long in the start posture, beyond its range of 0 to 0\.055.*widen"
    )
    with pytest.raises(DsoError, match=words):
        task(tmp_path, LENGTH.format(0.03, 0.12), rope=rope)
    task(tmp_path, LENGTH.format(0.03, 0.12), rope=rope, start=1.4)  # the tendon is shorter there
