"""Unsloth's own SFTTrainer as its notebooks use it: padding-free batches, or `packing: true`; one GPU.

    python script/baselines/unsloth_trainer.py --train_args_file settings.json --warm_up 4

Prompts are masked, as `train_on_responses_only` does in the notebooks: here by TRL's own columns `prompt` and
`completion`, which leave Unsloth its collator. `varlen_seam: true` gives its packed attention torch's variable-length
kernel, which Unsloth takes by itself from torch 2.12 on; UNSLOTH_TORCH_VARLEN=0 keeps it away.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from component.pipeline.benchmark.baseline import Meter, give_varlen_kernel, read_chats, run_baseline

LORA_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
#: What the notebooks set and the benchmark does not vary.
OF_NOTEBOOKS = {"weight_decay": 0.001, "seed": 3407, "report_to": "none"}


def load(settings: dict[str, Any]) -> tuple[Any, Any]:
    """The model with its adapter, and its tokenizer, as a notebook loads them."""
    from unsloth import FastLanguageModel

    model, tokenizer = FastLanguageModel.from_pretrained(
        settings["model_name_or_path"],
        max_seq_length=settings["max_seq_length"],
        dtype=None,
        load_in_4bit=settings["train_mode"] == "qlora",
        use_exact_model_name=True,
    )
    model = FastLanguageModel.get_peft_model(
        model,
        r=settings["lora_rank"],
        target_modules=LORA_TARGETS,
        lora_alpha=settings["lora_alpha"],
        lora_dropout=settings["lora_dropout"],
        bias="none",
        use_gradient_checkpointing="unsloth" if settings["gradient_checkpointing"] else False,
        random_state=3407,
    )
    return model, tokenizer


def measure(settings: dict[str, Any], warm_up: int, first_step: Path) -> dict[str, Any]:
    """Train with its trainer, whose batches are counted as they reach the model."""
    model, tokenizer = load(settings)
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    attention = give_varlen_kernel(model) if settings.get("varlen_seam") else "Unsloth's own choice"
    chats = read_chats(Path(settings["train_file"]), tokenizer, settings["max_seq_length"])
    keys = ("per_device_train_batch_size", "gradient_accumulation_steps", "max_steps", "learning_rate", "warmup_steps",
            "lr_scheduler_type", "logging_steps", "optim", "save_strategy", "output_dir")  # fmt: skip
    trainer = SFTTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=Dataset.from_list([{"prompt": chat.prompt, "completion": chat.answer} for chat in chats]),
        args=SFTConfig(
            **OF_NOTEBOOKS,
            **{key: settings[key] for key in keys},
            max_length=settings["max_seq_length"],
            packing=bool(settings.get("packing")),
        ),
    )
    meter = Meter(warm_up, first_step)
    one_step = trainer.training_step

    def counted_step(model: Any, inputs: Any, *arguments: Any, **keywords: Any) -> Any:
        """A micro-batch of the trainer's own."""
        mask, size = inputs.get("attention_mask"), inputs["input_ids"].numel()
        meter.count(size if mask is None else mask.sum(), size)
        return one_step(model, inputs, *arguments, **keywords)

    class StepEnds(TrainerCallback):
        """Tells the meter of optimizer steps."""

        def on_step_end(self, args: Any, state: Any, control: Any, **keywords: Any) -> None:
            """A step is done."""
            meter.end_step(0.0)

    trainer.training_step = counted_step
    trainer.add_callback(StepEnds())
    trainer.train()
    measured, logged = meter.result(), trainer.state.log_history
    losses = [[record["step"], record["loss"]] for record in logged if "loss" in record]
    return {
        **measured,
        "first_loss": losses[0][1],
        "last_loss": losses[-1][1],
        "losses": losses,
        "attention": attention,
        "trainer": {name: getattr(trainer.args, name, None) for name in ("packing", "padding_free", "bf16", "optim")},
    }


if __name__ == "__main__":
    sys.exit(run_baseline(__doc__.splitlines()[0], measure))
