"""What a run of suite `plan` has for sure: a damaged file is refused where it is opened, not where it is used."""

from __future__ import annotations

from typing import Any

from component.pipeline.benchmark.results_file import Fields, find_problem, list_of
from component.planning.read_config import NUMBER_BYTES

NUMBER = (int, float)
#: Of a device, and of one whose speed is looked up.
DEVICE: Fields = {"kind": str, "name": str, "total_memory_bytes": NUMBER}
CARD: Fields = {**DEVICE, "compute_capability": list_of(int, least=2)}
#: Of DataSize.
REQUIRED: Fields = {"num_rows": int, "mean_tokens": NUMBER, "longest": int}
OPTIONAL: Fields = {"longest_pack": int, "learned_share": NUMBER}


def _device_problem(part: Any) -> str | None:
    return find_problem(part, DEVICE) or (find_problem(part, CARD) if part["kind"] == "cuda" else None)


def _data_problem(part: Any) -> str | None:
    if problem := find_problem(part, REQUIRED):
        return problem
    unknown = part.keys() - REQUIRED.keys() - OPTIONAL.keys()
    if unknown:
        return f".{min(unknown)} is unknown"
    return find_problem(part, {name: rule for name, rule in OPTIONAL.items() if name in part})


def _type_problem(part: Any) -> str | None:
    return None if part in tuple(NUMBER_BYTES) else f" is {part!r}, none of {', '.join(NUMBER_BYTES)}"


def _precision_problem(part: Any) -> str | None:
    return list_of(_type_problem, least=2)(part) or (" has more than two items" if len(part) > 2 else None)


def _loss_problem(part: Any) -> str | None:
    return None if part is None else find_problem(part, {"got": (int, type(None))})


#: Fields of a run that ended well; whether its settings are a config is seen where they are read.
MEASURED: Fields = {
    "settings": dict, "loader": str, "precision": _precision_problem, "data": _data_problem, "gpu": _device_problem,
    "steps": list_of(NUMBER, least=2), "jobs": int, "loss": _loss_problem, "peak_allocated_bytes": (int, type(None)),
    "peak_reserved_bytes": (int, type(None)),
}  # fmt: skip
#: Of one that did not.
UNFINISHED_RUN: Fields = {"lines": list_of(str)}
#: Of one that ended well under a cap, which nothing but CUDA's allocator holds.
MEASURED_UNDER_A_CAP: Fields = {**MEASURED, "peak_allocated_bytes": int, "peak_reserved_bytes": int}
