"""What the programs say of themselves on ``--version`` and ``--build-info`` (PROCESS 2)."""

import sys

from pynsqd.wire.constants import NSQ_VERSION

_DISTRIBUTION = "pynsqd"


def version_line(program: str) -> str:
    """Say which nsqd ``program`` speaks like; harnesses read this line, so its shape is fixed."""
    return f"{program} v{NSQ_VERSION} (built w/python{python_version()})"


def build_info(program: str) -> str:
    """Say which version of this product ``program`` is, and what it runs on."""
    return f"{program} {product_version()} (speaks like nsqd {NSQ_VERSION}; python{python_version()}, {sys.platform})"


def product_version() -> str:
    """Give the version of the installed distribution; "unknown" when run from a folder that was never installed.

    Costs some 20 ms the first time.
    """
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415  # as the docstring says

    try:
        return version(_DISTRIBUTION)
    except PackageNotFoundError:
        return "unknown"


def python_version() -> str:
    """Give the version of Python, as 3.13.1."""
    return f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
