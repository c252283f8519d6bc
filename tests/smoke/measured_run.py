"""A run whose model is measured in memory, just before it is saved, and the same measure of a folder, loaded afresh.

As a script it trains a list of settings, in a process that Unsloth may patch: python measured_run.py SETTINGS.json
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.append(str(Path(__file__).parents[1]))  # as pytest does; as a script, this file has only its own folder
from blank_picture import write_blank

MEASURED_FILE = "measured.json"


def train_and_measure(settings: dict[str, Any]) -> None:
    """Run, and leave the measure of every held-out sequence by the model in memory in the run folder."""
    from component.config.load import load_config
    from component.pipeline import run
    from component.pipeline.prepare import prepare

    rows = held_out_ids(prepare(load_config(settings)))  # imports Unsloth, where it is asked for, before what follows
    from component.pipeline import train

    save_final_model = train.save_final_model

    def measure_and_save(model: Any, tokenizer: Any, folder: Path, *args: Any, **kwargs: Any) -> tuple[str, ...]:
        adapters = list(getattr(model, "peft_config", {}))
        assert adapters in ([], ["default"]), f"a second adapter is in memory: {adapters}"
        (folder / MEASURED_FILE).write_text(json.dumps(measure(model, rows)) + "\n", encoding="utf-8")
        return save_final_model(model, tokenizer, folder, *args, **kwargs)

    no_pictures = mock.patch("matplotlib.figure.Figure.savefig", write_blank)
    with no_pictures, mock.patch.object(train, "save_final_model", measure_and_save):
        run(settings)


def held_out_ids(prepared: Any) -> list[list[int]]:
    """Token ids of the evaluation rows; of a pair, of both answers."""
    from component.pipeline.sample_text import parts_of

    return [list(part.input_ids) for row in prepared.data.evaluation for _, part in parts_of(row)]


def measure(model: Any, rows: Sequence[Sequence[int]]) -> list[float]:
    """Log-probability of each sequence in nats, or its score where the model has a head for that."""
    import torch

    values = []
    model.eval()
    with torch.no_grad():
        for ids in rows:
            inputs = torch.tensor([ids])
            logits = model(input_ids=inputs, use_cache=False).logits.float()
            if logits.dim() == 2:
                values.append(logits.item())
            else:
                of_tokens = logits[:, :-1].log_softmax(-1).gather(-1, inputs[:, 1:, None])
                values.append(of_tokens.sum().item())
    return values


def load_scored(folder: Path, mode: str) -> Any:
    """A reward model with transformers and PEFT alone."""
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, BitsAndBytesConfig

    from component.models.quantization import prepare_four_bit_layers

    if mode == "full":
        return AutoModelForSequenceClassification.from_pretrained(folder).eval()
    base = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]
    quantization = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype="float32"
    )
    extra = {"quantization_config": quantization} if mode == "qlora" else {}
    pad_token_id = AutoTokenizer.from_pretrained(folder).pad_token_id
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, pad_token_id=pad_token_id, **extra)
    prepare_four_bit_layers(model, compute_dtype="float32")  # else bitsandbytes rounds to bfloat16 on some CPUs
    return PeftModel.from_pretrained(model, folder).eval()


if __name__ == "__main__":
    gc.disable()  # collecting takes as long as a small run's training
    for of_run in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        train_and_measure(of_run)
