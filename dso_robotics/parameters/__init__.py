"""Parameter paths and the vector they are packed into; called as `dso_robotics.parameters(model)`, the paths of a model."""

import importlib
import sys
import types


class _Callable(types.ModuleType):
    """This package shares its name with a public function, so it is that function too."""

    def __call__(self, *args, **kwargs):
        """As `dso_robotics.public.models.parameters`, which is on a higher floor and is loaded when it is called."""
        return importlib.import_module("dso_robotics.public.models").parameters(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
