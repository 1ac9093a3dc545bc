"""Optimisation methods for the loop in `core.descent`, one file each."""

from dso_robotics.registry import Registry

# Methods that train a policy, by the name that a study uses. Each is a class with the constructor of `windowed.Windowed`
# and, if it `supervises`, the further arguments of `ShortHorizon`.
TRAINING: Registry = Registry("training method", __name__)
