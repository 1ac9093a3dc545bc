"""From an action to the control of an actuator: about a home control, within its range, no faster than a limit.

    z = shift + gain a,  ctrl = middle + half tanh(z), or z for an actuator without a range
    ctrl[t] = ctrl[t-1] + clip(ctrl - ctrl[t-1], -step, step), with a limit of the rate

Zero gives the home control, and a small action changes it by `scale` per unit: shift = atanh((home - middle) / half) and
gain = scale / (half (1 - tanh(shift)^2)).
"""

import equinox as eqx
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float

# How far from the middle of its range a home may be, as a part of half the range. At the end itself tanh has no slope.
MOST = 0.95
# Minimum distance of a control from the end of its range, as a fraction of half the range. It keeps the action finite.
_INSIDE = 1e-3


class Squash(eqx.Module):
    """Map from any number to an actuator's control range, and the limits of its rate; see the formulas above.

    step: largest change in a control step, (nu,), infinite without a limit.
    after: whether noise is added after tanh. An action is then the place in the range, -1 to 1, plus noise, and is clipped.
    """

    middle: Float[Array, " nu"]
    half: Float[Array, " nu"]
    shift: Float[Array, " nu"]
    gain: Float[Array, " nu"]
    step: Float[Array, " nu"]
    limited: tuple[bool, ...] = eqx.field(static=True)
    after: bool = eqx.field(static=True, default=False)
    slow: bool = eqx.field(static=True, default=False)

    def moved(self, action: Float[Array, "*N nu"]) -> Float[Array, "*N nu"]:
        """z = shift + gain a: the argument of tanh, or the control of an actuator without a range."""
        return self.shift + self.gain * action

    def unmoved(self, z: Float[Array, "*N nu"]) -> Float[Array, "*N nu"]:
        """The action of a z, see `moved`."""
        return (z - self.shift) / self.gain

    def reach(self, raw: Float[Array, " nu"]) -> Float[Array, " nu"]:
        """The argument of tanh for an output of the policy; zero for actuators without a range."""
        return jnp.where(np.array(self.limited), self.moved(raw), 0.0)

    def mean(self, raw: Float[Array, " nu"]) -> Float[Array, " nu"]:
        """The action without noise for an output of the policy."""
        return jnp.where(np.array(self.limited), jnp.tanh(self.reach(raw)), raw) if self.after else raw

    def __call__(self, action: Float[Array, " nu"]) -> Float[Array, " nu"]:
        """Control [actuator units], without the limit of its rate."""
        moved = self.moved(action)
        place = jnp.clip(action, -1.0, 1.0) if self.after else jnp.tanh(moved)
        return jnp.where(np.array(self.limited), self.middle + self.half * place, moved)

    def led(self, action: Float[Array, " nu"], before: Float[Array, " nu"]) -> Float[Array, " nu"]:
        """The control of an action after the control `before`: no further away than `step`."""
        ctrl = self(action)
        return before + jnp.clip(ctrl - before, -self.step, self.step) if self.slow else ctrl

    @property
    def rest(self) -> Float[Array, " nu"]:
        """The action whose control is home."""
        return self.mean(jnp.zeros(self.middle.shape))

    @property
    def passive(self) -> Float[Array, " nu"]:
        """The action whose control is 0, clipped to the actuator's range.

        For a range symmetric about 0 that is the middle of the range. For a muscle with range 0 to 1 it is the lower end, up
        to a thousandth of half the range.
        """
        return self.action(jnp.zeros(self.middle.shape))

    def place(self, ctrl: Float[Array, "*N nu"]) -> Float[Array, "*N nu"]:
        """Controls as places in their ranges, -1 to 1; of actuators without a range, the controls."""
        return (ctrl - self.middle) / jnp.where(self.half > 0, self.half, 1.0)

    def action(self, ctrl: Float[Array, "*N nu"], inside: float = _INSIDE) -> Float[Array, "*N nu"]:
        """Actions that give these controls; an end of the range is moved inside by this part of its half."""
        limited = np.array(self.limited)
        place = jnp.clip(self.place(ctrl), -1.0 + inside, 1.0 - inside)
        back = self.unmoved(jnp.where(limited, jnp.arctanh(place), ctrl))
        return jnp.where(limited, place, back) if self.after else back

    def as_dict(self) -> dict[str, np.ndarray]:
        """The numbers of a policy at run time, which adds no noise; see `PolicyNumbers`."""
        found = {name: np.asarray(getattr(self, name)) for name in ("middle", "half", "shift", "gain", "step")}
        return found | {"limited": np.array(self.limited, bool)}


def squash(
    model: mujoco.MjModel,
    *,
    home: np.ndarray | None = None,
    scale: np.ndarray | None = None,
    step: np.ndarray | None = None,
    after: bool = False,
) -> Squash:
    """The `Squash` for a model's actuators.

    home: controls (nu,) of the action zero; the middle of the range, or 0 without one, by default.
    scale: change of the control per unit of a small action, (nu,); half the range, or 1 without one, by default. NaN in an
      entry of home or scale stands for the default.
    step: largest change in a control step, (nu,).
    """
    low, high = model.actuator_ctrlrange.T
    limited = np.asarray(model.actuator_ctrllimited, bool)
    middle, half = np.where(limited, (low + high) / 2, 0.0), np.where(limited, (high - low) / 2, 1.0)
    home, scale = (np.full(model.nu, np.nan) if given is None else given for given in (home, scale))
    home, scale = np.where(np.isnan(home), middle, home), np.where(np.isnan(scale), half, scale)
    width = np.where(half > 0, half, 1.0)
    part = np.clip((home - middle) / width, -MOST, MOST)
    shift = np.where(limited, np.arctanh(part), home)
    gain = np.where(limited, scale / (width * (1 - part**2)), scale)
    most = np.full(model.nu, np.inf) if step is None else np.asarray(step, float)
    numbers = (jnp.asarray(x) for x in (middle, half, shift, np.where(gain == 0, 1.0, gain), most))
    places = dict(zip(("middle", "half", "shift", "gain", "step"), numbers, strict=True))
    return Squash(**places, limited=tuple(map(bool, limited)), after=after, slow=bool(np.isfinite(most).any()))
