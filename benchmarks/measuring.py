"""Shared by the benchmarks: interleaved rounds, memory, the description of the machine, tables."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.networks import CLASSES, CONTENDERS, Network, Size, settle

Clock = Callable[[], float]
RESULTS = Path(__file__).parent / "results"
PEERS = ("FrEIA", "memcnn", "nflows", "normflows")


def arguments(description: str, *, blocks: int = 48) -> argparse.ArgumentParser:
    """Make the parser of the arguments that all benchmarks share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--blocks", type=int, default=blocks, help="couplings, a multiple of 6")
    parser.add_argument("--width", type=int, default=128, help="channels of the subnets' hidden layers")
    parser.add_argument("--side", type=int, default=32, help="height and width of the input, pixels, a multiple of 8")
    parser.add_argument("--batch", type=int, default=64, help="inputs per step")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="+", metavar="ROW", help="rows to measure, by name; all that can run here by default")
    parser.add_argument("--out", type=Path, help="the Markdown file to write; one in benchmarks/results by default")
    return parser


def prepare(chosen: argparse.Namespace) -> Size:
    """Set threads and warnings; return the size of the network."""
    silence(chosen.threads)
    return Size(chosen.blocks, chosen.width, (3, chosen.side, chosen.side), chosen.batch)


def silence(threads: int) -> None:
    """Set the number of threads, and ignore the other libraries' warnings."""
    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")


def rows(only: Sequence[str] | None, default: Iterable[str], device: str) -> tuple[list[str], list[str]]:
    """Select the names of the rows to measure; also return why others are left out."""
    from flowclf.training.precision import native_bf16

    unknown = set(only or ()) - CONTENDERS.keys()
    if unknown:
        raise SystemExit(f"unknown rows {sorted(unknown)}; there are {list(CONTENDERS)}")
    names, left_out = [], []
    for name in only or default:
        library = name.split(",")[0]
        if library in PEERS and not _installed(library):
            left_out.append(f"{name}: not installed (pip install '.[benchmarks]')")
        elif "bf16" in name and not only and not native_bf16(torch.device(device)):
            left_out.append(f"{name}: this processor has no bf16 of its own, and torch's emulation is ten times slower")
        else:
            names.append(name)
    return names, left_out


def _installed(library: str) -> bool:
    try:
        importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def build(name: str, size: Size, device: str = "cpu") -> Network:
    """Build a network with the weights that all networks share."""
    return settle(CONTENDERS[name](size)).to(device).train()


def batch(size: Size, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """Draw noise on the fixed-point grid, in [-1, 1), and labels."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(-(2**16), 2**16, (size.batch, *size.shape), generator=generator) / 2**16
    return x.to(device), torch.randint(0, CLASSES, (size.batch,), generator=generator).to(device)


def training_step(network: Network, x: Tensor, labels: Tensor) -> Callable[[], None]:
    """Make a training step with Adamax, the paper's optimiser."""
    optimizer = torch.optim.Adamax([parameter for parameter in network.parameters() if parameter.requires_grad], lr=1e-4)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        # Some libraries free their input.
        network.loss(x.clone(), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def seconds(function: Callable[[], object], device: str = "cpu", clock: Clock = time.perf_counter) -> float:
    """Measure the seconds of one call."""
    wait(device)
    started = clock()
    function()
    wait(device)
    return clock() - started


def wait(device: str) -> None:
    """Wait until the device has finished its work."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def rounds(
    functions: Mapping[str, Callable[[], object]], count: int, device: str = "cpu", clock: Clock = time.perf_counter
) -> dict[str, list[float]]:
    """Measure the seconds of each function, ``count`` times, in rounds of changing order; compare only times of one round."""
    names = list(functions)
    found: dict[str, list[float]] = {name: [] for name in names}
    for index in range(count):
        start = index % len(names)
        for name in names[start:] + names[:start]:
            found[name].append(seconds(functions[name], device, clock))
    return found


def ratio(times: Sequence[float], reference: Sequence[float]) -> float:
    """Speed relative to the reference: the median of the ratios over the rounds."""
    return statistics.median(theirs / ours for ours, theirs in zip(times, reference, strict=True))


def saved_bytes(network: Network, x: Tensor, labels: Tensor) -> int:
    """Count the bytes of unique storages saved for the backward pass, without parameters and input."""
    own = {value.untyped_storage().data_ptr() for value in (*network.parameters(), x)}
    storages: dict[int, int] = {}
    held: list[Tensor] = []

    def pack(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
            # Otherwise its address could be reused by another storage.
            held.append(value.detach())
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        network.loss(x, labels)
    return sum(storages.values())


def parameter_bytes(network: nn.Module) -> int:
    """Count the bytes of the trainable parameters."""
    return sum(parameter.nbytes for parameter in network.parameters() if parameter.requires_grad)


def machine(device: str = "cpu") -> str:
    """Describe the machine and the libraries in a sentence."""
    versions = ", ".join(f"{library} {importlib.metadata.version(library)}" for library in PEERS if _installed(library))
    where = torch.cuda.get_device_name() if device.startswith("cuda") else f"{_processor()}, {os.cpu_count()} cores"
    threads = torch.get_num_threads()
    return (
        f"{where}, {threads} thread{'s' if threads > 1 else ''}, {torch.backends.cpu.get_cpu_capability()}; "
        f"Python {platform.python_version()}, torch {torch.__version__}, {versions}; load {os.getloadavg()[0]:.1f} before the run"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def table(header: Sequence[str], body: Iterable[Sequence[str]], left_out: Iterable[str] = ()) -> str:
    """Format a Markdown table with text in the first column and numbers in the others, and below it why rows were left out."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *body]
    return "\n".join([*("| " + " | ".join(line) + " |" for line in lines), *(f"\nLeft out: {reason}." for reason in left_out)])


def write(name: str, title: str, text: str, chosen: argparse.Namespace, about: str) -> Path:
    """Write a benchmark's table with the command that repeats it, and print it."""
    path = chosen.out or RESULTS / f"{name}.md"
    command = f"python -m benchmarks.{name} {shlex.join(sys.argv[1:])}".rstrip()
    content = f"# {title}\n\n`{command}`\n\n{about}\n\n{text}\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    print(content)
    return path


def run_apart(code: str, *values: str, threads: int, give_back: bool = True) -> str:
    """Run a Python program in a separate process and return its output.

    Args:
        code: the program.
        values: its arguments.
        threads: number of threads for torch.
        give_back: let its heap return freed pages to the system at once, which is not the default.
    """
    settings = {"OMP_NUM_THREADS": str(threads)}
    if give_back:
        # Gradients stay while activations are freed, which would leave a heap full of holes; so each block gets its own pages.
        settings.update(MALLOC_MMAP_THRESHOLD_="65536", MALLOC_TRIM_THRESHOLD_="65536")
    command = [sys.executable, "-W", "ignore", "-c", code, *values]
    root = str(Path(__file__).parent.parent)
    return subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **settings}, cwd=root).stdout
