"""The device that trains: its memory, what it can compute, and its peak speed by the vendor's datasheet."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from typing import Literal

from component.runtime.distributed import local_rank

# Dense 16-bit tensor TFLOP/s (float32 accumulation, no sparsity) from NVIDIA's datasheets and architecture whitepapers.
# bfloat16 where the GPU has it, else float16 (T4, V100, Quadro RTX). Patterns match the whole device name, so that
# a laptop part, a MIG slice or another form factor is unknown instead of wrong. GeForce names carry no memory size: the
# 12 GB RTX 3080 is 3 % faster than the 10 GB card that is listed.
PEAK_16BIT_TFLOPS: dict[str, float] = {
    r"GB200": 2500.0,
    r"B200": 2250.0,
    r"GH200 (480GB|120GB|144G HBM3e)": 989.5,
    r"H200": 989.5,
    r"H200 NVL": 835.5,
    r"H100 80GB HBM3|H100 SXM5?": 989.5,
    r"H100 NVL": 835.5,
    r"H100 PCIe": 756.5,
    r"H800": 989.5,
    r"H800 PCIe": 756.5,
    r"H20": 148.0,
    r"A100-(SXM4|PCIE)-(40|80)GB|A100 80GB PCIe": 312.0,
    r"A800-SXM4-80GB|A800 80GB PCIe": 312.0,
    r"A30": 165.0,
    r"A40": 149.7,
    r"A10": 125.0,
    r"A10G": 70.0,
    r"L40S": 362.05,
    r"L40": 181.05,
    r"L20": 119.5,
    r"L4": 121.0,
    r"T4": 65.0,
    r"V100-SXM2-(16|32)GB": 125.0,
    r"V100-PCIE-(16|32)GB": 112.0,
    r"V100S-PCIE-32GB": 130.0,
    r"RTX A6000": 154.8,
    r"RTX A5000": 111.1,
    r"RTX A4000": 76.7,
    r"RTX 6000 Ada Generation": 364.2,
    r"RTX 5000 Ada Generation": 261.1,
    r"Quadro RTX (6000|8000)": 130.5,
    r"RTX PRO 6000 Blackwell Workstation Edition": 503.8,
    r"GeForce RTX 5090": 209.5,
    r"GeForce RTX 5080": 112.6,
    r"GeForce RTX 5070 Ti": 87.9,
    r"GeForce RTX 5070": 61.7,
    r"GeForce RTX 4090": 165.2,
    r"GeForce RTX 4090 D": 147.1,
    r"GeForce RTX 4080 SUPER": 104.4,
    r"GeForce RTX 4080": 97.5,
    r"GeForce RTX 4070 Ti SUPER": 88.2,
    r"GeForce RTX 4070 Ti": 80.2,
    r"GeForce RTX 4070 SUPER": 71.0,
    r"GeForce RTX 4070": 58.3,
    r"GeForce RTX 4060 Ti": 44.1,
    r"GeForce RTX 4060": 30.2,
    r"GeForce RTX 3090 Ti": 80.0,
    r"GeForce RTX 3090": 71.0,
    r"GeForce RTX 3080 Ti": 68.2,
    r"GeForce RTX 3080": 59.5,
    r"GeForce RTX 3070 Ti": 43.5,
    r"GeForce RTX 3070": 40.6,
    r"GeForce RTX 3060 Ti": 32.4,
    r"GeForce RTX 3060": 25.5,
}


@dataclass(frozen=True)
class Hardware:
    """The device of this process.

    Attributes:
        kind: "cuda", "mps" or "cpu".
        name: as the driver or the operating system calls it.
        total_memory_bytes: of the device; main memory for a CPU.
        free_memory_bytes: at the time of asking.
        compute_capability: (major, minor) of an NVIDIA GPU.
        supports_bf16: bfloat16 arithmetic in hardware, fast enough to train with.
        num_devices: devices of this kind that the process can see.
    """

    kind: Literal["cuda", "mps", "cpu"]
    name: str
    total_memory_bytes: int
    free_memory_bytes: int
    compute_capability: tuple[int, int] | None
    supports_bf16: bool
    num_devices: int


def detect_hardware(use_cpu: bool = False) -> Hardware:
    """Look at the device that training will use; imports torch, and initialises CUDA where there is a GPU.

    Args:
        use_cpu: describe the CPU although there is a GPU.
    """
    import torch

    if not use_cpu and torch.cuda.is_available():
        return _cuda()
    if not use_cpu and torch.backends.mps.is_available():
        return _mps()
    import psutil

    memory = psutil.virtual_memory()
    return Hardware(
        kind="cpu",
        name=cpu_name(),
        total_memory_bytes=memory.total,
        free_memory_bytes=memory.available,
        compute_capability=None,
        supports_bf16=_cpu_has_fast_bf16(),
        num_devices=1,
    )


def cpu_name() -> str:
    """Model name of the CPU as the operating system gives it, its architecture where it gives none."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def peak_bf16_flops(name: str) -> float | None:
    """Dense 16-bit FLOP/s of a GPU by its device name, None where the table does not have exactly this one."""
    short = re.sub(r"^(NVIDIA|Tesla) ", "", name.strip())
    for pattern, tera_flops in PEAK_16BIT_TFLOPS.items():
        if re.fullmatch(pattern, short):
            return tera_flops * 1e12
    return None


def model_flops_utilization(
    *, num_parameters: int, tokens_per_second: float, frozen_base: bool, peak_flops: float | None
) -> float | None:
    """Share of the peak that the model's own arithmetic uses (PaLM, https://arxiv.org/abs/2204.02311, appendix B).

    Args:
        num_parameters: of the model, adapters included; quantized weights count as the parameters they stand for.
        tokens_per_second: for one device.
        frozen_base: 4 FLOPs a parameter and token (no weight gradients), else 6.
        peak_flops: of one device; None gives None.
    """
    if peak_flops is None:
        return None
    return (4 if frozen_base else 6) * num_parameters * tokens_per_second / peak_flops


def _cuda() -> Hardware:
    import torch

    index = min(local_rank(), torch.cuda.device_count() - 1)
    free, total = torch.cuda.mem_get_info(index)
    return Hardware(
        kind="cuda",
        name=torch.cuda.get_device_name(index),
        total_memory_bytes=total,
        free_memory_bytes=free,
        compute_capability=torch.cuda.get_device_capability(index),
        supports_bf16=torch.cuda.is_bf16_supported(including_emulation=False),
        num_devices=torch.cuda.device_count(),
    )


def _mps() -> Hardware:
    import torch

    total = torch.mps.recommended_max_memory()
    return Hardware(
        kind="mps",
        name=cpu_name(),
        total_memory_bytes=total,
        free_memory_bytes=total - torch.mps.driver_allocated_memory(),
        compute_capability=None,
        # bfloat16 depends on the chip and the macOS version; float32 always works.
        supports_bf16=False,
        num_devices=1,
    )


def _cpu_has_fast_bf16() -> bool:
    import torch

    # torch < 2.12 has no public query; drop the private names when 2.12 is required.
    if hasattr(torch.cpu, "get_capabilities"):
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16", False) or capabilities.get("amx_bf16", False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
