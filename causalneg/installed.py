"""What is installed: the client alone, or the pipeline too."""

from collections.abc import Iterator
from contextlib import contextmanager

from causalneg.errors import UserError


@contextmanager
def needs_pipeline() -> Iterator[None]:
    """Name the extra to install where a package of the pipeline is missing.

    Raises:
        UserError: one is.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "causalneg").split(".")[0]
        if package == "causalneg":
            raise
        raise UserError(
            f"The package {package} is not installed. The commands need the pipeline: "
            "`pip install 'causalneg[cpu]'`, or 'causalneg[gpu]' on a machine with an NVIDIA GPU."
        ) from error
