"""Running: recipes to run directories, and finished models to answers. What the command line calls."""

from flowclf.run.execution import RunResult, resume, run
from flowclf.run.models import evaluate_model, metamers, predict
from flowclf.run.planes import planes
from flowclf.run.planning import Plan, plan
from flowclf.run_folder import RunFolder

__all__ = ["Plan", "RunFolder", "RunResult", "evaluate_model", "metamers", "plan", "planes", "predict", "resume", "run"]
