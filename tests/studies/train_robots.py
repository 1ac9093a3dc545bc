"""A cart without limits: the smallest robot to train, and linear-quadratic, so that the best policy is known."""

CART = """<mujoco model="cart">
  <option timestep="0.05" integrator="Euler"><flag contact="disable" eulerdamp="disable"/></option>
  <worldbody><body name="cart">
    <joint name="x" type="slide" axis="1 0 0" damping="0.1"/>
    <geom name="cart" type="box" size="0.1 0.1 0.1" mass="1"/>
    <site name="nose" pos="0.1 0 0"/>
  </body></worldbody>
  <actuator><motor name="push" joint="x" gear="2"/></actuator>
</mujoco>"""

STUDY = """
model = "cart.xml"
seconds = 2.0
{more}
[policy]
kind = "linear"
noise = 0.1
[start]
position = {{ x = 1.0 }}
[cost.place]
kind = "square"
quantity = "joint/x/position"
[cost.effort]
kind = "control"
weight = 0.3
[training]
environments = 8
horizon = 8
iterations = {iterations}
critic_hidden = 16
learning_rate = 0.05
"""


def write(folder, iterations=3, more=""):
    (folder / "cart.xml").write_text(CART)
    (folder / "study.toml").write_text(STUDY.format(iterations=iterations, more=more))
    return folder / "study.toml"
