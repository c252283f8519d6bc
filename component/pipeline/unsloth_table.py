"""The page docs/unsloth.md: which task, mode and model family goes through Unsloth, and why others do not."""

from __future__ import annotations

from collections.abc import Iterator

from component.config.keys import MODES, SHIPPED_TASKS
from component.models.families import FAMILIES
from component.models.support import FASTER_TASKS, TASKS, UNSLOTH_VERSION, is_fast_family, why_unsupported

HEAD = f"""# What goes through Unsloth

Generated from `component/models/support.py` and `component/models/families.py` by `python script/write_docs.py`; do not
edit. It is about unsloth {UNSLOTH_VERSION}, which requirements-unsloth.txt pins.

`use_unsloth: true` takes Unsloth where these tables say so and else the vanilla loader, with the reason in a warning
and in `run.json`; `require` makes the reason an error; `auto` takes it where it is known to be faster.

How it is tested: on a CPU, `tests/smoke/test_unsloth_tasks.py` runs the tasks of TRL in every mode through both loaders
and compares what they log; `tests/parity/test_loaders.py` compares sft. Unsloth's CPU backend has neither its kernels
nor its rewritten trainers, so that shows what stands between, not Unsloth on a GPU; `tests/gpu` trains there.

## Tasks

| task | through Unsloth | with `auto` |
|---|---|---|"""

MODES_HEAD = """
## Modes

| mode | through Unsloth |
|---|---|"""

#: Task that could go through Unsloth and with `auto` does not -> why.
NOT_WITH_AUTO = {
    "orpo": "not measured through Unsloth",
    "cpo": "faster through Unsloth in one trial of a 1B shape, which is too little to choose by",
    "grpo": "faster through Unsloth in two short trials, which are too few to choose by",
}

#: Mode, with the quantization that it may have -> what Unsloth does of it; `models.unsloth_fit` holds the conditions.
MODE_NOTES = {
    "qlora": "yes in 4 bit (NF4 with double quantization; fp4, or single quantization, goes to vanilla); "
    "with `quantization: int8` on a GPU alone",
    "lora": "yes",
    "full": "yes, as its `full_finetuning`; its own kernels are for adapters, so `auto` takes vanilla",
}

FAMILIES_HEAD = """
## Families

- fast: kernels and a forward pass written for the family.
- compiled: transformers' own code, which Unsloth's compiler rewrites. Not tried here on a GPU.

| family | architecture | path |
|---|---|---|"""

CELLS_HEAD = """
## Task by architecture

| architecture | {tasks} |
|---|{line}|"""

OTHERS = """
## Settings that it does not follow

The vanilla loader takes over for these, with the reason: `deepspeed` and `fsdp`, `rope_scaling`, a `max_seq_length`
above the model's positions, a start from an adapter, a checkpoint in 8 bit, GPUs before compute capability 7.0, and
devices that are neither NVIDIA GPUs nor CPUs. `use_dora` loses its fused kernels.
Its fp8 bases are not offered here.
`--dry_run` says which loader a config gets, and why.
"""


def unsloth_page() -> str:
    """The text of docs/unsloth.md."""
    cells = CELLS_HEAD.format(tasks=" | ".join(SHIPPED_TASKS), line="|".join("---" for _ in SHIPPED_TASKS))
    modes = (f"| {mode} | {MODE_NOTES[mode]} |" for mode in MODES)
    parts = (HEAD, *map(_task_row, SHIPPED_TASKS), MODES_HEAD, *modes, FAMILIES_HEAD, *_family_rows(), cells, *_cells())
    return "\n".join((*parts, OTHERS))


def _task_row(task: str) -> str:
    reason = TASKS.get(task, "has not been verified")
    auto = "vanilla" if reason else "Unsloth" if task in FASTER_TASKS else f"vanilla: {NOT_WITH_AUTO[task]}"
    return f"| {task} | {'no: ' + reason if reason else 'yes'} | {auto} |"


def path_of(model_type: str) -> str:
    """How Unsloth runs an architecture: fast, compiled, or not at all."""
    if why_unsupported(model_type, "sft") is not None:
        return "no"
    return "fast" if is_fast_family(model_type) else "compiled"


def _family_rows() -> Iterator[str]:
    for family in FAMILIES:
        if family.is_native:
            path = path_of(family.model_type)
            shown = path if path != "no" else "no: Unsloth is not known to support it"
            yield f"| {family.title} | `{family.model_type}` | {shown} |"
    own_code = dict.fromkeys(f"`{family.model_type}`" for family in FAMILIES if not family.is_native)
    yield f"| those with code of their own | {', '.join(own_code)} | no |"


def _cells() -> Iterator[str]:
    for model_type in dict.fromkeys(family.model_type for family in FAMILIES if family.is_native):
        cells = (path_of(model_type) if why_unsupported(model_type, task) is None else "-" for task in SHIPPED_TASKS)
        yield f"| `{model_type}` | {' | '.join(cells)} |"
