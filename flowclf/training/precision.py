"""Which precision the subnets of couplings train in."""

from __future__ import annotations

from typing import Literal

import torch

from flowclf.errors import UsageError


def native_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware; elsewhere bf16 is emulated, ten times slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.backends.cpu.get_cpu_capability()
    return device.type == "cpu" and "AVX512" in capabilities and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def subnet_dtype(precision: Literal["auto", "fp32", "bf16"], device: torch.device) -> torch.dtype | None:
    """The dtype for ``flowclf.nodes.set_subnet_dtype``: bfloat16, or None for the parameters' own; auto: bf16 if it is native."""
    if precision not in ("auto", "fp32", "bf16"):
        raise UsageError(f"precision must be auto, fp32 or bf16, found {precision!r}")
    wanted = precision == "bf16" or (precision == "auto" and native_bf16(device))
    return torch.bfloat16 if wanted else None
