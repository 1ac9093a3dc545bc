"""How samples of the posterior of an identification may be drawn; see `studies.posterior`."""

from dso_robotics.errors import DsoError
from dso_robotics.extras import require

SAMPLERS = ("auto", "laplace", "nuts")


def chosen(sampler: str, engine: str) -> str:
    """The route, "laplace" or "nuts", of `sampler` on an engine.

    Raises:
      DsoError: the route needs the other engine, or a package that is not installed.
    """
    route = ("nuts" if engine == "mjx" else "laplace") if sampler == "auto" else sampler
    if route == "nuts":
        if engine != "mjx":
            raise DsoError(
                "--sampler nuts: Hamiltonian Monte Carlo needs the gradient by all start states and noise scales, which the C "
                "engine does not have; add --engine mjx, or use --sampler laplace."
            )
        require("posterior", "--sampler nuts")
    return route
