"""The report of a run, and the comparison of several: one HTML file each, from what runs left in their folders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

__all__ = ["compare_runs", "write_report"]

REPORT = "report.html"
