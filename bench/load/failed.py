"""The one error of the benches."""

from __future__ import annotations


class Failed(Exception):
    """A figure could not be had; the text says why and stands below the table."""
