"""GPUs that a run can be planned for without having one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from component.runtime.hardware import Hardware, peak_bf16_flops

GIB = 2**30
#: What a process takes before torch allocates anything: the CUDA context, cuBLAS and cuDNN.
CONTEXT_BYTES = 0.55 * GIB
#: Memory per second of a GPU that is not in the table, for each FLOP per second: that of an A100.
BYTES_PER_FLOP = 2039e9 / 312e12


@dataclass(frozen=True)
class Gpu:
    """A card.

    Attributes:
        title: what people call it.
        memory_bytes: that a program can use, a little less than its name says.
        capability: NVIDIA's compute capability.
        peak_flops: dense 16-bit FLOP/s by the datasheet; None where it is not known.
        bandwidth: of its memory in bytes a second, by the datasheet.
    """

    title: str
    memory_bytes: float
    capability: tuple[int, int] | None
    peak_flops: float | None
    bandwidth: float

    @property
    def supports_bf16(self) -> bool:
        """Whether it is fast at bfloat16: from Ampere on."""
        return self.capability is None or self.capability >= (8, 0)


def _gpu(title: str, device: str, memory_gib: float, capability: tuple[int, int], bandwidth_gb: float) -> Gpu:
    """A card whose speed component/runtime/hardware.py has, under the name that its driver gives."""
    peak = peak_bf16_flops(device)
    assert peak is not None, device
    return Gpu(title, memory_gib * GIB, capability, peak, bandwidth_gb * 1e9)


#: Name on the command line -> card. Memory as nvidia-smi reports it in total, bandwidth from NVIDIA's datasheets.
GPUS: Mapping[str, Gpu] = MappingProxyType(
    {
        "t4": _gpu("T4", "Tesla T4", 15.0, (7, 5), 320),
        "v100-16": _gpu("V100 16 GB", "Tesla V100-SXM2-16GB", 16.0, (7, 0), 900),
        "v100": _gpu("V100 32 GB", "Tesla V100-SXM2-32GB", 32.0, (7, 0), 900),
        "3090": _gpu("RTX 3090", "NVIDIA GeForce RTX 3090", 24.0, (8, 6), 936),
        "4080": _gpu("RTX 4080", "NVIDIA GeForce RTX 4080", 16.0, (8, 9), 717),
        "4090": _gpu("RTX 4090", "NVIDIA GeForce RTX 4090", 24.0, (8, 9), 1008),
        "5090": _gpu("RTX 5090", "NVIDIA GeForce RTX 5090", 31.8, (12, 0), 1792),
        "a10": _gpu("A10", "NVIDIA A10", 22.5, (8, 6), 600),
        "l4": _gpu("L4", "NVIDIA L4", 22.5, (8, 9), 300),
        "a6000": _gpu("RTX A6000", "NVIDIA RTX A6000", 48.0, (8, 6), 768),
        "l40s": _gpu("L40S", "NVIDIA L40S", 45.0, (8, 9), 864),
        "a100-40": _gpu("A100 40 GB", "NVIDIA A100-SXM4-40GB", 40.0, (8, 0), 1555),
        "a100-80": _gpu("A100 80 GB", "NVIDIA A100-SXM4-80GB", 80.0, (8, 0), 2039),
        "h100": _gpu("H100 80 GB", "NVIDIA H100 80GB HBM3", 79.6, (9, 0), 3350),
        "h200": _gpu("H200 141 GB", "NVIDIA H200", 139.8, (9, 0), 4800),
        "b200": _gpu("B200", "NVIDIA B200", 178.0, (10, 0), 8000),
    }
)
#: Cards that every plan is held against.
COMPARED = ("t4", "3090", "l40s", "a100-80", "h200")


def describe_hardware(hardware: Hardware) -> Gpu | None:
    """The card of this process; None without one."""
    if hardware.kind != "cuda":
        return None
    return describe_gpu(hardware.name, hardware.total_memory_bytes, hardware.compute_capability)


def describe_gpu(name: str, memory_bytes: float, capability: tuple[int, int] | None) -> Gpu:
    """A card by the name that its driver gives; what neither tells is that of the table's card that is most alike.

    Several have the same speed, as H100 and H200: their memory tells them apart.

    Args:
        capability: None where the driver does not say.
    """
    peak = peak_bf16_flops(name)
    alike = [gpu for gpu in GPUS.values() if gpu.peak_flops == peak and capability in (None, gpu.capability)]
    if not alike or peak is None:
        return Gpu(name, memory_bytes, capability, peak, (peak or 0.0) * BYTES_PER_FLOP)
    nearest = min(alike, key=lambda gpu: abs(gpu.memory_bytes - memory_bytes))
    return Gpu(name, memory_bytes, nearest.capability, peak, nearest.bandwidth)
