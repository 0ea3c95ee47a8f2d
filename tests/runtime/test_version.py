"""What harnesses read from --version (PROCESS 2)."""

import re
import sys
from importlib import metadata

import pytest

from pynsqd.runtime.version import build_info, product_version, version_line


def test_version_line_has_the_shape_that_harnesses_match() -> None:
    line = version_line("pynsqd")
    assert re.fullmatch(r"[a-z]+ v\d+\.\d+\.\d+(-[a-z]+)? \(built w/[a-z0-9.-]+\)", line)
    assert line == f"pynsqd v1.3.0 (built w/python{sys.version.split()[0].rstrip('+')})"


def test_build_info_names_the_product_version() -> None:
    assert build_info("pynsqd").startswith(f"pynsqd {metadata.version('pynsqd')} ")


def test_a_tree_that_was_never_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert product_version() == "unknown"
