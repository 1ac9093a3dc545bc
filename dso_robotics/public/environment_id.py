"""The id under which Gymnasium finds studies: `gymnasium.make("dso/Study-v0", study="swing_up.toml")`.

Gymnasium calls `register` when it is imported, by the entry point in pyproject.toml, so nothing is loaded here.
"""


def register() -> None:
    """Register the id "Study-v0" in the namespace "dso", which Gymnasium opens around this call."""
    import gymnasium

    gymnasium.register("Study-v0", entry_point="dso_robotics.public.environment:Environment")
