"""Methods of the one loop (`core.descent`), one file each."""

from dso_robotics.registry import Registry

# Methods that train a policy, by the name that a study gives them. Each is a class that is made as `ShortHorizon` is.
TRAINING: Registry = Registry("training method", __name__)
