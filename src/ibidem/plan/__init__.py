"""Plans: calls that need each other's results, submitted once; each starts the moment its inputs are there."""

from ibidem.plan.mistakes import Mistake, PlanError
from ibidem.plan.references import Reference, text
from ibidem.plan.results import Result, StepSkipped, UpstreamFailed
from ibidem.plan.steps import Plan, Step

__all__ = ["Mistake", "Plan", "PlanError", "Reference", "Result", "Step", "StepSkipped", "UpstreamFailed", "text"]
