"""Unsloth's loss on a GPU makes scores of the learned tokens alone, so that no rows need be chosen for it.

It runs in a process of its own, since Unsloth patches its process. Times and waits are printed, not judged.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]

#: Relative to the norm of the gradient, and to the loss: the same rows in other parts of 16-bit products.
GRADIENT_TOLERANCE, LOSS_TOLERANCE = 5e-3, 1e-4

MEASURE = """
import json, warnings
import unsloth
from unsloth_zoo.fused_losses import fused_linear, unsloth_fused_ce_loss
import torch
from component.models.unsloth_import import why_all_scores
from component.trainers.chunked_loss import predicted_positions

HIDDEN, VOCAB = 4096, 128256
draw = dict(generator=torch.Generator("cuda").manual_seed(0), device="cuda")
weight = torch.randn(VOCAB, HIDDEN, dtype=torch.bfloat16, **draw) * 0.02
scores, make_scores = [], fused_linear._logits_into
def noting(rows, matrix, *others):
    scores.append(rows.shape[0] * matrix.shape[0])
    return make_scores(rows, matrix, *others)
fused_linear._logits_into = noting

def measure(hidden, place, labels, number):
    def compute():
        return unsloth_fused_ce_loss(
            trainer=None, hidden_states=rows if place is None else rows[:, place], lm_head_weight=weight,
            lm_head_bias=None, labels=labels, mask=None, n_items=number, scaling=None, target_gb=None,
            torch_compile=True, logit_softcapping=0, logit_scale_multiply=0, logit_scale_divide=0, shift_labels=True,
        )
    rows = hidden.clone().requires_grad_()
    scores.clear()
    loss = compute()
    loss.backward()
    num_scored, gradient = sum(scores) / VOCAB, rows.grad.float()
    seconds = []
    for _ in range(8):
        rows.grad = None
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        compute().backward()
        end.record()
        torch.cuda.synchronize()
        seconds.append(begin.elapsed_time(end) / 1000)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        compute().backward()
        torch.cuda.set_sync_debug_mode("default")
    waits = sum("synchronizing" in str(item.message) for item in caught)
    return loss.item(), gradient, {"scored": num_scored, "seconds": sorted(seconds)[4], "waits": waits}

def compare(tokens, share):
    hidden = torch.randn(1, tokens, HIDDEN, dtype=torch.bfloat16, **draw)
    labels = torch.randint(0, VOCAB, (1, tokens), **draw)
    labels[torch.rand(labels.shape, **draw) >= share] = -100
    positions = predicted_positions(labels)
    number = torch.tensor(len(positions), device="cuda")
    # Chosen rows, their number rounded up to 1,024 by rows without a label.
    padding = -(-(len(positions) + 1) // 1024) * 1024 - len(positions)
    few = torch.cat([labels.new_full((1,), -100), labels[0, positions + 1], labels.new_full((padding - 1,), -100)])
    place = torch.cat([positions, positions[:1].expand(padding)])
    loss, gradient, result = measure(hidden, None, labels, number)
    chosen_loss, chosen_gradient, chosen = measure(hidden, place, few[None], number)
    return {
        "tokens": tokens,
        "learned": len(positions),
        "as it is": result,
        "with chosen rows": chosen,
        "loss": abs(chosen_loss / loss - 1),
        "gradient": ((chosen_gradient - gradient).norm() / gradient.norm()).item(),
    }

cases = [compare(tokens, share) for tokens in (2048, 16384) for share in (1.0, 0.6, 0.3)]
print("RESULT " + json.dumps({"obstacle": why_all_scores(), "cases": cases}))
"""


def test_scores_are_of_learned_tokens_alone(repository: Path, capsys: pytest.CaptureFixture) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "UNSLOTH_DISABLE_STATISTICS": "1"}
    command = [sys.executable, "-c", MEASURE]
    finished = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr[-3000:]
    result = json.loads(finished.stdout.rpartition("RESULT ")[2])
    assert result["obstacle"] is None
    for case in result["cases"]:
        with capsys.disabled():
            print(f"\n{case}")
        assert case["as it is"]["scored"] == case["with chosen rows"]["scored"] == case["learned"]
        assert case["loss"] < LOSS_TOLERANCE
        assert case["gradient"] < GRADIENT_TOLERANCE
