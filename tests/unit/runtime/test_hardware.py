"""The device, the table of peaks and the utilization that stands on it."""

from __future__ import annotations

import pytest

from component.runtime.hardware import PEAK_16BIT_TFLOPS, detect_hardware, model_flops_utilization, peak_bf16_flops


@pytest.mark.parametrize(
    ("name", "tera_flops"),
    [
        ("NVIDIA H200", 989.5),
        ("NVIDIA H200 NVL", 835.5),
        ("NVIDIA H100 80GB HBM3", 989.5),
        ("NVIDIA H100 PCIe", 756.5),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA A100 80GB PCIe", 312.0),
        ("NVIDIA A100-PCIE-40GB", 312.0),
        ("A100-SXM4-40GB", 312.0),
        ("NVIDIA L4", 121.0),
        ("NVIDIA L40S", 362.05),
        ("NVIDIA A10G", 70.0),
        ("Tesla T4", 65.0),
        ("Tesla V100-SXM2-16GB", 125.0),
        ("NVIDIA RTX A6000", 154.8),
        ("NVIDIA GeForce RTX 3090", 71.0),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA GeForce RTX 4090 D", 147.1),
        ("NVIDIA GeForce RTX 5090", 209.5),
    ],
)
def test_peaks_of_the_datasheets(name: str, tera_flops: float) -> None:
    assert peak_bf16_flops(name) == pytest.approx(tera_flops * 1e12, rel=1e-12)


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 3080 Laptop GPU",
        "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
        "NVIDIA A100-SXM-64GB",
        "NVIDIA A1000",
        "NVIDIA H100",
        "NVIDIA GeForce GTX 1080",
        "AMD Instinct MI300X",
        "",
    ],
)
def test_a_name_that_is_not_exactly_in_the_table_is_unknown(name: str) -> None:
    assert peak_bf16_flops(name) is None


def test_the_table_is_in_tera_flops() -> None:
    assert len(PEAK_16BIT_TFLOPS) > 50
    assert all(20 < value < 3000 for value in PEAK_16BIT_TFLOPS.values())


def test_utilization_counts_four_flops_with_a_frozen_base_and_six_without() -> None:
    one = {"num_parameters": 8_000_000_000, "tokens_per_second": 10_000.0}
    assert model_flops_utilization(**one, frozen_base=True, peak_flops=800e12) == pytest.approx(0.4)
    assert model_flops_utilization(**one, frozen_base=False, peak_flops=800e12) == pytest.approx(0.6)
    assert model_flops_utilization(**one, frozen_base=True, peak_flops=None) is None


def test_the_cpu_is_described_on_request() -> None:
    cpu = detect_hardware(use_cpu=True)
    assert (cpu.kind, cpu.compute_capability, cpu.num_devices) == ("cpu", None, 1)
    assert cpu.name
    assert 0 < cpu.free_memory_bytes <= cpu.total_memory_bytes


@pytest.mark.gpu
def test_the_gpu_is_described() -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    gpu = detect_hardware()
    assert gpu.kind == "cuda"
    assert gpu.supports_bf16 == (gpu.compute_capability >= (8, 0))
    assert 0 < gpu.free_memory_bytes <= gpu.total_memory_bytes
