"""The plainest QLoRA loop of each loader, to hold train.py against: no trainer, no data pipeline, random full rows.

    python script/baselines/bare_loop.py --loader vanilla --model output/llama3-8b-random --json OUT

`vanilla` is the recipe of the QLoRA paper's code and of Firefly: transformers, PEFT's prepare_model_for_kbit_training
(embeddings, norms and head in float32), reentrant checkpointing, paged 32-bit AdamW. `unsloth` is what Unsloth's own
notebooks do before they hand over to a trainer, with the same optimizer.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

LORA_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def load_vanilla(name: str, rank: int) -> Any:
    """Load with transformers, PEFT and bitsandbytes."""
    import torch
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    model = AutoModelForCausalLM.from_pretrained(
        name, dtype=torch.bfloat16, quantization_config=quantization, device_map={"": 0}
    )
    model = prepare_model_for_kbit_training(model)
    lora = LoraConfig(r=rank, lora_alpha=16, target_modules=LORA_TARGETS, task_type="CAUSAL_LM")
    return get_peft_model(model, lora)


def load_unsloth(name: str, rank: int, max_seq_length: int) -> Any:
    """Load with Unsloth, its own checkpointing."""
    import torch
    import unsloth

    model, _ = unsloth.FastLanguageModel.from_pretrained(
        name,
        max_seq_length=max_seq_length,
        dtype=torch.bfloat16,
        load_in_4bit=True,
        use_exact_model_name=True,
        device_map={"": 0},
    )
    return unsloth.FastLanguageModel.get_peft_model(
        model,
        r=rank,
        lora_alpha=16,
        lora_dropout=0,
        bias="none",
        target_modules=LORA_TARGETS,
        use_gradient_checkpointing="unsloth",
    )


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Train and time `steps` steps after two warm-up steps."""
    if options.loader == "unsloth":
        model = load_unsloth(options.model, options.rank, options.max_seq_length)
    else:
        model = load_vanilla(options.model, options.rank)
    import bitsandbytes
    import torch

    torch.manual_seed(0)
    optimizer = bitsandbytes.optim.PagedAdamW32bit(
        [parameter for parameter in model.parameters() if parameter.requires_grad], lr=2e-4
    )
    model.train()
    torch.cuda.reset_peak_memory_stats()
    loss = torch.zeros(())
    for step in range(options.steps + 2):
        if step == 2:
            torch.cuda.synchronize()
            began = time.monotonic()
        ids = torch.randint(1000, 100_000, (options.batch, options.max_seq_length), device="cuda")
        with torch.autocast("cuda", torch.bfloat16):
            loss = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    torch.cuda.synchronize()
    seconds = time.monotonic() - began
    return {
        "tokens_per_second": options.steps * options.batch * options.max_seq_length / seconds,
        "peak_allocated_bytes": torch.cuda.max_memory_allocated(),
        "peak_reserved_bytes": torch.cuda.max_memory_reserved(),
        "last_loss": loss.item(),
    }


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--loader", choices=["vanilla", "unsloth"], required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--max_seq_length", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    options.json.write_text(json.dumps(measure(options)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
