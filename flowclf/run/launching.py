"""Start the processes of a distributed training on this machine, as torchrun does."""

from __future__ import annotations

import logging
import os
import signal
import sys
import uuid
from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from flowclf.errors import InterruptedRunError, ProcessError


def launch(arguments: Sequence[str], processes: int) -> None:
    """Run ``python -m flowclf`` with some arguments in several processes that know each other, and wait for them.

    If one fails, the others are ended. Each gets its share of the cores, unless OMP_NUM_THREADS says how many threads to use.

    Raises:
        ProcessError: if a process failed; it has said why, unless a signal killed it.
        InterruptedRunError: if SIGINT or SIGTERM stopped them; each had the time to save its state.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // processes)))
    # It would report a failure in a table of its own.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "flowclf", *arguments)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        killed, code = failure.exitcode < 0, abs(failure.exitcode)
        how = f"was killed by {signal.Signals(code).name}" if killed else f"ended with exit code {code}"
        # Wrong usage and unusable files are found before there is anything to resume.
        how_to_go_on = "" if not killed and code in (2, 3) else "; flowclf recipe run --resume continues from the last saved state"
        raise ProcessError(
            f"process {rank} of {processes} {how}, and the others were ended{how_to_go_on}", 1 if killed else code
        ) from error
    except SignalException as error:
        raise InterruptedRunError(f"{error.sigval.name}: all {processes} processes have ended", error.sigval) from error
