"""How the commands set MuJoCo up: the package itself changes no global state."""


def silence_mujoco() -> None:
    """Keep MuJoCo from writing its warnings to MUJOCO_LOG.TXT in the working folder: divergence is reported by the commands."""
    import mujoco

    mujoco.set_mju_user_warning(lambda text: None)
