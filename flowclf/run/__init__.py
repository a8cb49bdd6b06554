"""Commands as functions: run and resume recipes; evaluate, predict and draw with finished models."""

from flowclf.recipe.run_folder import RunFolder
from flowclf.run.execution import RunResult, resume, run
from flowclf.run.inference import evaluate_model, planes
from flowclf.run.launching import launch
from flowclf.run.pictures import metamers, predict
from flowclf.run.planning import Plan, plan
from flowclf.run.sweeping import SweepResult, resume_sweep, sweep

__all__ = [
    "Plan",
    "RunFolder",
    "RunResult",
    "SweepResult",
    "evaluate_model",
    "launch",
    "metamers",
    "plan",
    "planes",
    "predict",
    "resume",
    "resume_sweep",
    "run",
    "sweep",
]
