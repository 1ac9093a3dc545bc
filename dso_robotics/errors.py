"""The one base exception of the package."""


class DsoError(Exception):
    """Bad input or a failed computation, told in one paragraph that names the thing and the cure.

    The command line prints the message and exits with status 2; library users catch it like any exception.
    """
