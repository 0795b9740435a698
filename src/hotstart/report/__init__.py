"""What happened during a build: a model of it that turns into JSON, and renderings of it."""

from hotstart.report.model import Action, PhaseSeconds, Report, UnitReport, VariantReport
from hotstart.report.text import render

__all__ = ["Action", "PhaseSeconds", "Report", "UnitReport", "VariantReport", "render"]
