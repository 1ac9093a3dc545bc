"""A robot with meshes, a texture and a height field in files of its own."""

import struct

import numpy as np
from PIL import Image

ROBOT = """<mujoco model="cart">
  <compiler meshdir="meshes" texturedir="tex" angle="radian"/>
  <option timestep="0.05" integrator="Euler"><flag contact="disable" eulerdamp="disable"/></option>
  <asset><mesh name="body" file="part.stl"/><mesh name="other" file="other/part.stl"/>
    <texture name="wood" type="2d" file="wood.png"/><material name="wood" texture="wood"/>
    <hfield name="hills" file="../tex/wood.png" size="1 1 .1 .1"/></asset>
  <worldbody><geom type="hfield" hfield="hills" pos="0 0 -2"/><body name="cart">
    <joint name="x" type="slide" axis="1 0 0" damping="0.1"/>
    <geom name="cart" type="mesh" mesh="body" material="wood" density="3000"/>
    <geom type="mesh" mesh="other" density="1000"/>
  </body></worldbody>
  <actuator><motor name="push" joint="x" gear="2" ctrlrange="-1 1"/></actuator>
  <sensor><jointpos name="place" joint="x"/><jointvel name="speed" joint="x"/></sensor>
</mujoco>"""


def write(folder):
    """Write the robot and its files to `folder`; return the path of the model."""
    for name in ("meshes/other", "tex"):
        (folder / name).mkdir(parents=True)
    for name, size in (("part.stl", 0.1), ("other/part.stl", 0.2)):
        points = size * np.array([[0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 3]])
        faces = ((0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3))
        rows = (struct.pack("<12fH", 0, 0, 0, *points[a], *points[b], *points[c], 0) for a, b, c in faces)
        (folder / "meshes" / name).write_bytes(bytes(80) + struct.pack("<I", 4) + b"".join(rows))
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 8), dtype=np.uint8)).save(folder / "tex" / "wood.png")
    (folder / "robot.xml").write_text(ROBOT)
    return folder / "robot.xml"
