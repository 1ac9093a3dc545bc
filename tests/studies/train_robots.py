"""A cart without limits: the smallest robot to train, and linear-quadratic, so that the best policy is known."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

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

# The cart under the regulator of a model that begins six times too heavy.
PLANNED = """
model = "real.xml"
seconds = 5.0
[plan]
model = "plan.xml"
free = ["body/cart/mass=6@0.1:30", "joint/x/damping=0.1@0:30"]
velocity_cost = { x = 0.1 }
control_cost = { push = 0.3 }
[policy]
kind = "linear"
noise = 0.05
[start]
position = { x = 1.0 }
[cost.place]
kind = "square"
quantity = "joint/x/position"
[cost.speed]
kind = "square"
quantity = "joint/x/velocity"
weight = 0.1
[cost.effort]
kind = "control"
weight = 0.3
[training]
method = "model_design"
environments = 8
horizon = 50
iterations = 40
critic_hidden = 16
learning_rate = 0.1
restart = 1.0
"""


def write(folder, iterations=3, more=""):
    (folder / "cart.xml").write_text(CART)
    (folder / "study.toml").write_text(STUDY.format(iterations=iterations, more=more))
    return folder / "study.toml"


def linear_cart():
    """A (2, 2) and B (2, 1) of the cart: v' = v + dt (gear u - damping v), x' = x + dt v', MuJoCo's semi-implicit Euler."""
    dt, gear, damping = 0.05, 2.0, 0.1
    a = np.array([[1.0, dt * (1 - dt * damping)], [0.0, 1 - dt * damping]])
    return a, np.array([[dt * dt * gear], [dt * gear]])


def regulated_cart(gamma):
    """A, B, Q, R and the value matrix of the best policy where a cost of place and effort sees x' and u."""
    a, b = linear_cart()
    q, r = np.diag([1.0, 0.0]), np.array([[0.3]])
    root = np.sqrt(gamma)
    return a, b, q, r, scipy.linalg.solve_discrete_are(root * a, root * b, a.T @ q @ a, r + b.T @ q @ b, s=a.T @ q @ b)


def trained(trainer, chain, iterations):
    """The learner after so many iterations from seed 0, and the last news."""
    learner, news = trainer.init(jax.random.key(0), jnp.asarray(chain.layout.initial)), None
    for _ in range(iterations):
        learner, news = trainer.step(learner)
    return learner, news
