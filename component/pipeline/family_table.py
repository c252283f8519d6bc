"""The page docs/families.md: which models have a config, and with which template and settings they are trained."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from component.config.load import Config, load_config
from component.models.families import ADAPTER_SIZES, FAMILIES, FULL_SIZES, Checkpoint, Family
from component.pipeline.shipped_configs import SHIPPED, config_texts, value_text
from component.pipeline.steps import num_rows_per_step

PAGE_HEAD = """# Model families

Generated from `component/models/families.py` by `python script/write_docs.py`; do not edit. The configs in
`train_args/` come from the same table (`python script/write_configs.py`). A model that is not here trains as well if
its architecture is: name it as `model_name_or_path` on top of a config of its family.

The tests train a tiny random model of each architecture for a QLoRA step on real 4-bit layers, and load its adapter
again. The published checkpoints themselves were not downloaded.

`template_name`: chat models take their tokenizer's own chat template (`auto`). A base model has never seen the control
tokens of a chat, and an adapter does not train their embeddings, so it gets turns of plain text (`default`), unless its
makers trained those tokens.
"""

TASKS_HEAD = """
## Tasks and modes

What the bases make of them for a model that changes nothing on account of its size.

| task | mode | configs | learning rate | rows a step | rank, alpha |
|---|---|---|---|---|---|"""

SIZES_HEAD = """
## Settings by size

What models of other sizes change in sft and pretraining.

| billions of parameters | lora, qlora | full |
|---|---|---|"""

REMOTE_HEAD = """
## Families that need code of their own

The pinned transformers does not have these architectures. They need `trust_remote_code: true`, which runs Python code
from the hub, written for older versions of transformers; read it first. None has been tried here or has a config.

| family | architecture | hub id | billions | `template_name` |
|---|---|---|---|---|"""


def family_page(train_args: Path) -> str:
    """The text of docs/families.md, from the table of families and the bases in a train_args folder."""
    native = [family for family in FAMILIES if family.is_native]
    remote = [family for family in FAMILIES if not family.is_native]
    parts = (
        PAGE_HEAD,
        *_native_rows(native),
        *_notes(native),
        TASKS_HEAD,
        *_tasks(train_args),
        SIZES_HEAD,
        *_sizes(),
        REMOTE_HEAD,
    )
    return "\n".join((*parts, *_remote_rows(remote))) + "\n"


def _native_rows(families: list[Family]) -> Iterator[str]:
    yield "| family | architecture | model | hub id | billions | `template_name` | configs |"
    yield "|---|---|---|---|---|---|---|"
    for family in families:
        for number, checkpoint in enumerate(family.checkpoints):
            title = f"{family.title}{' (licence)' if family.is_gated else ''}" if number == 0 else ""
            architecture = f"`{family.model_type}`" if number == 0 else ""
            cells = (
                title,
                architecture,
                checkpoint.name,
                f"`{checkpoint.hub_id}`",
                f"{checkpoint.num_billions:g}",
                checkpoint.template_name,
                _where(checkpoint),
            )
            yield f"| {' | '.join(cells)} |"
    yield "\n(licence): to be accepted on the model's page before it can be downloaded."


def _where(checkpoint: Checkpoint) -> str:
    paths = [name.split("/") for name in config_texts() if name.endswith(f"/{checkpoint.name}.json")]
    return ", ".join(f"[{task} {mode}](../train_args/{task}/{mode}/{file})" for task, mode, file in paths)


def _notes(families: list[Family]) -> Iterator[str]:
    yield ""
    yield from (f"- {family.title} (`{family.model_type}`): {family.note}." for family in families if family.note)


def _sizes() -> Iterator[str]:
    limits = sorted({limit for sizes in (ADAPTER_SIZES, FULL_SIZES) for limit, _ in sizes})
    for limit in limits:
        adapters, full = (
            next(settings for upper, settings in sizes if limit <= upper) for sizes in (ADAPTER_SIZES, FULL_SIZES)
        )
        shown = f"up to {limit:g}" if limit != float("inf") else f"above {limits[-2]:g}"
        cells = (
            ", ".join(f"`{key}: {value_text(value)}`" for key, value in item.items()) or "-"
            for item in (adapters, full)
        )
        yield f"| {shown} | {' | '.join(cells)} |"


def _tasks(train_args: Path) -> Iterator[str]:
    for task, mode in SHIPPED:
        config = _on_bases(train_args, task, mode)
        training, adapter = config.training, config.adapter
        cells = (
            task,
            mode,
            str(sum(name.startswith(f"{task}/{mode}/") for name in config_texts())),
            value_text(training.learning_rate),
            str(num_rows_per_step(training)),
            "-" if mode == "full" else f"{adapter.lora_rank}, {adapter.lora_alpha}",
        )
        yield f"| {' | '.join(cells)} |"


def _on_bases(train_args: Path, task: str, mode: str) -> Config:
    """The config of a model that changes nothing on account of its size."""
    bases = [str(train_args / "base" / f"{name}.json") for name in (task, mode)]
    own = {"model_name_or_path": "-", "train_file": "-", "output_dir": "-"}
    return load_config({"base": bases, **own})


def _remote_rows(families: list[Family]) -> Iterator[str]:
    for family in families:
        for item in family.checkpoints:
            cells = (
                family.title,
                f"`{family.model_type}`",
                f"`{item.hub_id}`",
                f"{item.num_billions:g}",
                item.template_name,
            )
            yield f"| {' | '.join(cells)} |"
