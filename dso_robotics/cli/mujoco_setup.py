"""How the commands set MuJoCo up: the package itself changes no global state."""


def silence_mujoco() -> None:
    """Stop MuJoCo from writing warnings to MUJOCO_LOG.TXT in the working folder: the commands report divergence."""
    import mujoco

    mujoco.set_mju_user_warning(lambda text: None)
