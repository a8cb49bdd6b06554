"""Commands as functions: run and resume recipes; evaluate, predict and draw with finished models."""

from flowclf.recipe.run_folder import RunFolder
from flowclf.run.execution import RunResult, resume, run
from flowclf.run.inference import evaluate_model, planes
from flowclf.run.pictures import metamers, predict
from flowclf.run.planning import Plan, plan

__all__ = ["Plan", "RunFolder", "RunResult", "evaluate_model", "metamers", "plan", "planes", "predict", "resume", "run"]
