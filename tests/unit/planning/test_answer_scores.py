"""Where Unsloth scores answers in parts, and where it makes all scores: what a plan must not take for less."""

from __future__ import annotations

from dataclasses import replace

import pytest
from measured import SHAPE

from component.config.load import load_config
from component.planning.gpus import GPUS
from component.planning.logits import loss_memory, unsloth_part_bytes
from component.planning.memory import plan_memory
from component.planning.plan import judge
from component.planning.read_config import Setting, read_workload
from component.planning.workload import Workload

FILES = {"model_name_or_path": "m", "train_file": "d", "output_dir": "o"}
UNSLOTH = Setting("unsloth", "bfloat16", "bfloat16", supports_varlen=True)
PARTS = unsloth_part_bytes(8192, SHAPE.vocab, SHAPE.hidden)
#: TRL's loss holds 12 bytes a score of 8,192 tokens at least.
ALL = 12 * 8192 * SHAPE.vocab


def planned(*overrides: str, task: str = "dpo", shape=SHAPE, setting: Setting = UNSLOTH) -> Workload:
    rows = {"dpo": 2, "kto": 4}[task]
    values = {**FILES, "task_type": task, "per_device_train_batch_size": rows, "max_seq_length": 2048}
    return read_workload(load_config(values, overrides), shape, setting)


@pytest.mark.parametrize("task", ["dpo", "kto"])
def test_answers_are_scored_in_parts_of_unsloths_loss(task: str) -> None:
    """By the same rule as next tokens, in the same file of unsloth_zoo."""
    workload = planned(task=task)
    assert workload.tokens == 8192 and loss_memory(workload).forward == PARTS
    vanilla = planned(task=task, setting=replace(UNSLOTH, loader="vanilla"))
    assert loss_memory(vanilla).forward >= ALL


@pytest.mark.parametrize(
    "overrides",
    [
        ["modules_to_save=[lm_head]"],
        ["modules_to_save=[model.embed_tokens,lm_head]"],
        ["lora_target_modules=[q_proj,lm_head]"],
        ["new_tokens=[<a>]"],
        ["offload_head=true", "offload_embedding=true"],
        ["use_weighting=true"],
    ],
)
def test_what_makes_all_scores(overrides: list[str]) -> None:
    """A head that something is around of, and weights of pairs: such a run does not fit where parts would."""
    workload = planned(*overrides)
    assert loss_memory(workload).forward >= ALL
    assert judge(plan_memory(planned()), GPUS["t4"]) == "fits"
    assert judge(plan_memory(workload), GPUS["t4"]) == "does not fit"


def test_a_shared_head_is_trained_with_the_embeddings() -> None:
    overrides = ["modules_to_save=[embed_tokens]"]
    tied = replace(SHAPE, is_tied=True)
    assert loss_memory(planned(*overrides)).forward == PARTS == loss_memory(planned(shape=tied)).forward
    assert loss_memory(planned(*overrides, shape=tied)).forward >= ALL


def test_experts_have_a_loss_of_their_own() -> None:
    assert loss_memory(planned(shape=replace(SHAPE, experts_per_layer=1))).forward >= ALL
