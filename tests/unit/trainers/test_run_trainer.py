"""What a trainer refuses of a checkpoint."""

from __future__ import annotations

import pytest
import torch
from bitsandbytes.optim import PagedAdamW32bit
from torch.optim import AdamW

from component.config.errors import UserError
from component.trainers.run_trainer import check_states


@pytest.mark.parametrize("before", [AdamW, PagedAdamW32bit])
@pytest.mark.parametrize("after", [AdamW, PagedAdamW32bit])
def test_states_of_the_other_optimizer_are_refused(before: type, after: type) -> None:
    """Both are what `optim: auto` may have chosen; without states there is nothing to refuse."""
    optimizers = []
    for kind in (before, after):
        weight = torch.nn.Parameter(torch.ones(2, 3))
        weight.grad = torch.ones(2, 3)
        optimizers.append(kind([weight], lr=1e-3))
    first, second = optimizers
    check_states(second, "of the run", "checkpoint-2")
    first.step()
    second.load_state_dict(first.state_dict())
    if before is after:
        check_states(second, "of the run", "checkpoint-2")
        return
    with pytest.raises(UserError, match="^optim: of the run: checkpoint-2 holds the states of another optimizer; if"):
        check_states(second, "of the run", "checkpoint-2")
