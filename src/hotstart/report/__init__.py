"""What happened during a build: a model of it that turns into JSON; `text` renders it."""

from hotstart.report.model import (
    Action,
    PhaseSeconds,
    Report,
    SplitReport,
    UnitReport,
    VariantReport,
)

__all__ = ["Action", "PhaseSeconds", "Report", "SplitReport", "UnitReport", "VariantReport"]
