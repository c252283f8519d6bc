"""What `script/benchmark.py plan` measured on one H200 in November 2026, with the vanilla loader: bytes and seconds."""

from __future__ import annotations

from typing import Any

from component.pipeline.benchmark.plan_cases import CASES, Case

#: Name of the case, less its loader -> peak allocated, peak reserved, left over by earlier cases; seconds of a step.
RECORDED = {
    "llama 0.3b, full, 1024 x 8": (
        8_284_839_936, 8_956_936_192, 512, 0.14548,
    ),
    "llama 0.3b, full, 512 x 16, gradient_checkpointing=False": (
        18_749_775_360, 19_818_086_400, 67_109_376, 0.10039,
    ),
    "qwen2.5 0.5b, full, 2048 x 2, gradient_checkpointing=False, optim=adamw_8bit": (
        18_881_460_736, 21_669_871_616, 67_109_376, 0.13465,
    ),
    "qwen2.5 0.5b, full, 1024 x 4, optim=paged_adamw_8bit, gradient_accumulation_steps=2": (
        12_709_976_064, 15_533_604_864, 612_696_576, 0.39017,
    ),
    "qwen2.5 0.5b, full, 512 x 2, task_type=dpo": (
        13_500_660_736, 15_898_509_312, 1_158_283_776, 0.17863,
    ),
    "qwen2.5 0.5b, qlora, 1024 x 4, task_type=kto": (
        11_371_842_048, 12_876_513_280, 1_158_283_776, 0.77283,
    ),
    "llama3.2 1b, qlora, 2048 x 4, gradient_checkpointing=False": (
        28_361_534_464, 30_790_385_664, 1_158_284_800, 0.20822,
    ),
    "llama3.2 1b, lora, 2048 x 4, gradient_checkpointing=False": (
        32_305_392_640, 34_821_111_808, 1_158_284_800, 0.18618,
    ),
    "llama3.2 1b, lora, 1024 x 2, task_type=dpo": (
        10_972_532_736, 12_192_841_728, 1_158_284_800, 0.26817,
    ),
    "llama3.2 1b, qlora, 2048 x 4, gradient_checkpointing=False, packing=True": (
        28_335_582_208, 30_771_511_296, 1_158_284_800, 0.22722,
    ),
    "llama3.2 1b, full, 1024 x 4, optim=adafactor": (
        14_486_296_064, 16_779_313_152, 1_158_284_800, 0.15607,
    ),
    "llama3.2 1b, lora, 1024 x 2, task_type=orpo": (
        11_824_246_272, 15_349_055_488, 1_158_284_800, 0.19206,
    ),
    "llama3.2 1b, qlora, 512 x 4, gradient_checkpointing=False, task_type=dpo": (
        15_605_669_888, 16_619_929_600, 1_158_284_800, 0.2666,
    ),
    "llama3.2 1b, lora, 1024 x 4, task_type=reward": (
        6_249_291_776, 6_467_616_768, 1_158_284_800, 0.2178,
    ),
    "llama3.2 3b, qlora, 1024 x 4": (
        10_880_050_176, 12_740_198_400, 1_158_284_800, 0.48628,
    ),
    "llama3.2 3b, lora, 2048 x 1, gradient_checkpointing=False": (
        20_376_368_128, 22_068_330_496, 1_158_284_800, 0.20038,
    ),
    "llama3 8b, 6 layers, qlora, 2048 x 4": (
        17_213_795_328, 21_000_880_128, 1_158_284_800, 0.22397,
    ),
    "llama3 8b, 6 layers, int8, 1024 x 2, gradient_checkpointing=False": (
        10_473_929_728, 11_670_650_880, 1_158_284_800, 0.09586,
    ),
    "llama3 8b, 6 layers, lora, 4096 x 1, gradient_checkpointing=False": (
        17_989_303_296, 19_465_764_864, 1_158_284_800, 0.08947,
    ),
    "llama3 8b, 6 layers, int8, 2048 x 2": (
        13_143_960_064, 14_992_539_648, 1_158_284_800, 0.2014,
    ),
    "qwen3 8b, 4 layers, qlora, 512 x 8, gradient_checkpointing=False": (
        14_746_295_296, 16_341_008_384, 1_158_284_800, 0.07223,
    ),
    "qwen3 8b, 4 layers, qlora, 2048 x 2, gradient_checkpointing=False": (
        14_747_081_728, 16_341_008_384, 1_158_284_800, 0.07581,
    ),
    "qwen3 8b, 4 layers, lora, 8192 x 1": (
        20_768_111_616, 24_744_296_448, 1_158_284_800, 0.18304,
    ),
    "llama2 13b, 4 layers, qlora, 2048 x 2, gradient_checkpointing=False": (
        7_704_921_088, 8_436_842_496, 1_158_284_800, 0.06966,
    ),
    "llama2 13b, 4 layers, lora, 1024 x 8": (
        8_309_216_256, 10_452_205_568, 1_158_284_800, 0.17906,
    ),
    "llama3 8b, qlora, 2048 x 2": (
        15_016_082_432, 17_192_452_096, 1_158_284_800, 0.59915,
    ),
}  # fmt: skip
#: Samples of the one packed case: how many packs, mean tokens and longest.
PACKED_DATA = {"num_rows": 159, "mean_tokens": 397.2857, "longest": 733}

GPU = {"kind": "cuda", "name": "NVIDIA H200", "total_memory_bytes": 150_109_880_320, "compute_capability": [9, 0]}


def recorded_results() -> dict[str, dict[str, Any]]:
    """As the benchmark keeps them: all rows were as long as the limit."""
    return {case.name: _result(case) for case in CASES if case.loader == "vanilla"}


def _result(case: Case) -> dict[str, Any]:
    allocated, reserved, left_over, seconds = RECORDED[case.name.removeprefix("vanilla, ")]
    rows = {"num_rows": 16, "mean_tokens": float(case.length), "longest": case.length}
    return {
        "settings": {"model_name_or_path": "m", "train_file": "rows.jsonl", "output_dir": "run", **case.settings()},
        "loader": case.loader,
        "precision": ["float32" if case.mode == "full" else "bfloat16", "bfloat16"],
        "data": PACKED_DATA if case.keys.get("packing") else rows,
        "gpu": GPU,
        "peak_allocated_bytes": allocated,
        "peak_reserved_bytes": reserved,
        "left_over_bytes": left_over,
        "step_seconds": seconds,
    }
