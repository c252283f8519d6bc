"""TRL's trainer of grpo on our prompts: exact ids, all stop tokens, checked rewards, exact resume."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import trl
from loguru import logger
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from component.config.errors import UserError
from component.data.groups import SAMPLE, GroupSampler, PromptDataset
from component.data.rows import Prepared
from component.runtime.seeds import capture_random_state
from component.trainers.callbacks.completions import CompletionsCallback
from component.trainers.rewards.interface import RewardError
from component.trainers.rewards.load import completion_of
from component.trainers.rewards.reward import Reward
from component.trainers.trl_trainer import TRLTrainer

#: Of a checkpoint, for each process: completions that later steps still learn from.
ROLLOUTS_FILE = "rollouts_{rank}.safetensors"


class GRPOTrainer(TRLTrainer, trl.GRPOTrainer):
    """TRL's trainer on prepared prompts.

    Args:
        rewards: in the order of `args.reward_weights`.
        stop_token_ids: any of these ends a completion; TRL itself knows the tokenizer's EOS alone.
        learns_truncated: whether completions that did not end are learned from.
        completions: gets the completions of each batch.
    """

    def __init__(
        self,
        *,
        rewards: Sequence[Reward],
        stop_token_ids: Sequence[int],
        learns_truncated: bool,
        completions: CompletionsCallback,
        **kwargs: Any,
    ) -> None:
        self._rewards = tuple(rewards)
        self._stop_token_ids = frozenset(stop_token_ids)
        self._learns_truncated = learns_truncated
        self._completions = completions
        self._samples: list[Prepared] = []
        super().__init__(reward_funcs=[_label(reward.name) for reward in rewards], **kwargs)
        self.add_callback(completions)

    @property
    def train_dataset(self) -> PromptDataset:
        """Changed: ours; TRL takes tables alone, whose columns have one type each."""
        return self._datasets["train"]

    @train_dataset.setter
    def train_dataset(self, table: Any) -> None:
        """The table that TRL was given in its place."""

    @property
    def eval_dataset(self) -> PromptDataset | None:
        """Changed: see `train_dataset`."""
        return self._datasets["eval"]

    @eval_dataset.setter
    def eval_dataset(self, table: Any) -> None:
        """The table that TRL was given in its place."""

    def _get_train_sampler(self, dataset: Any = None) -> GroupSampler:
        """Changed: the order of prompts depends on seed and epoch alone, and no prompt is left out."""
        args = self.args
        return GroupSampler(
            self._order,
            num_generations=self.num_generations,
            prompts_per_batch=args.generation_batch_size // self.num_generations,
            num_passes=self.num_iterations * args.steps_per_generation,
            drop_last=args.dataloader_drop_last,
        )

    def _count_tokens(self, batches: Sequence[Any]) -> None:
        """Changed: prompts have no completions yet; `compute_loss` counts. What a failed step began with is kept."""
        self._rewind = capture_random_state()
        self._is_first_batch = True

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Changed: counts the tokens of a micro-batch."""
        if self.model.training:
            prompt, completion = inputs["prompt_mask"], inputs["completion_mask"]
            masks = {
                "completion_mask": torch.cat([torch.zeros_like(prompt), completion], dim=1),
                "attention_mask": torch.cat([prompt, completion], dim=1),
            }
            self._tokens.add([masks])
        return super().compute_loss(model, inputs, *args, **kwargs)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Changed: all of it is computed in the number format that training computes in; completions are logged."""
        self._samples = [row[SAMPLE] for row in inputs]
        with self.compute_loss_context_manager():
            output = super()._generate_and_score_completions(inputs)
        advantages = output["advantages"].tolist()
        self._completions.keep(
            [record | {"advantage": value} for record, value in zip(self._records, advantages, strict=True)]
        )
        return output

    def _generate(self, prompts: list[Any]) -> tuple[Any, ...]:
        """Changed: prompts are the prepared ids, any stop token ends a completion, and the text is decoded as it is.

        TRL's own also runs tools and environments, which rows here do not have.
        """
        prompt_ids = [list(sample.input_ids) for sample in self._samples]
        sampled, logprobs = self._generate_single_turn(prompt_ids, None, {})
        completion_ids = [self._until_stop(ids) for ids in sampled]
        if logprobs is not None:
            logprobs = [values[: len(ids)] for values, ids in zip(logprobs, completion_ids, strict=True)]
        has_ended = [ids[-1] in self._stop_token_ids for ids in completion_ids]
        self._measure_lengths([len(ids) for ids in completion_ids], has_ended)
        learned = None
        if not self._learns_truncated:
            learned = [[int(ended)] * len(ids) for ids, ended in zip(completion_ids, has_ended, strict=True)]
        texts = self.processing_class.batch_decode(completion_ids, skip_special_tokens=True)
        turns = [
            completion_of(sample, text=text, token_ids=ids).turns
            for sample, text, ids in zip(self._samples, texts, completion_ids, strict=True)
        ]
        return prompt_ids, completion_ids, learned, turns, logprobs, {}, None, []

    def _until_stop(self, ids: Sequence[int]) -> list[int]:
        """The ids up to the first stop token, which belongs to them."""
        end = next((place for place, token in enumerate(ids) if token in self._stop_token_ids), len(ids) - 1)
        return list(ids[: end + 1])

    def _measure_lengths(self, lengths: Sequence[int], has_ended: Sequence[bool]) -> None:
        """Log the lengths of the completions of all processes, in tokens, and the share that did not end."""
        device = self.accelerator.device
        all_lengths = self.accelerator.gather(torch.tensor(lengths, device=device)).float()
        ended = self.accelerator.gather(torch.tensor(has_ended, device=device))
        metrics = self._metrics["train" if self.model.training else "eval"]
        metrics["completions/mean_length"].append(all_lengths.mean().item())
        metrics["completions/min_length"].append(all_lengths.min().item())
        metrics["completions/max_length"].append(all_lengths.max().item())
        metrics["completions/clipped_ratio"].append(1 - ended.float().mean().item())
        if ended.any():
            metrics["completions/mean_terminated_length"].append(all_lengths[ended].mean().item())

    def _calculate_rewards(
        self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Sequence[Sequence[int]]
    ) -> Tensor:
        """Changed: rewards are checked, and named together with their row where they fail.

        Returns:
            Rewards of all processes, of shape (completions, rewards); NaN where one does not apply.
        """
        texts = self.processing_class.batch_decode(completion_ids_list, skip_special_tokens=True)
        batch = [
            completion_of(sample, text=text, token_ids=ids)
            for sample, text, ids in zip(self._samples, texts, completion_ids_list, strict=True)
        ]
        scores = {reward.name: reward.score(batch) for reward in self._rewards}
        if all(value is None for values in scores.values() for value in values):
            logger.warning(f"no reward applies to any of {len(batch)} completions; nothing is learned from them")
        self._records = [
            {
                "split": "training" if self.model.training else "evaluation",
                "source": str(item.source),
                "prompt": item.prompt,
                "completion": item.text,
                "rewards": {name: values[place] for name, values in scores.items()},
            }
            for place, item in enumerate(batch)
        ]
        columns = [[float("nan") if value is None else value for value in values] for values in scores.values()]
        rewards = torch.tensor(columns, dtype=torch.float32, device=self.accelerator.device).T.contiguous()
        return self.accelerator.gather(rewards)

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """Changed: where a reward fails, what was learned is written to a checkpoint first."""
        try:
            return super().training_step(*args, **kwargs)
        except RewardError as error:
            raise self._saved_before(error) from error
        finally:
            self._is_first_batch = False

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Changed: the same where a reward fails in an evaluation, which is left out when the run goes on."""
        self._rewind, self._is_first_batch = capture_random_state(), True
        try:
            return super().evaluate(*args, **kwargs)
        except RewardError as error:
            raise self._saved_before(error) from error

    def _saved_before(self, error: RewardError) -> RewardError:
        """Write a checkpoint of the last step, if there is one, and say so in the error.

        Random numbers are those that the failed step began with, so that a resumed run repeats it exactly. A failure
        amid the micro-batches of a step leaves counts that no checkpoint may have.
        """
        step = self.state.global_step
        if step == 0 or not self._is_first_batch:
            return error
        folder = Path(self.args.output_dir) / f"checkpoint-{step}"
        if not folder.exists():
            self._rewind()
            self._save_checkpoint(self.model, trial=None)
        return RewardError(f"{error}, then run the same command: it goes on from {folder}")

    def _mark_counts(self) -> Callable[[], None]:
        """Changed: the same for the place among the completions, and for those that later steps still learn from."""
        metrics, step, kept = super()._mark_counts(), self._step, self._buffered_inputs

        def rewind() -> None:
            """Go back to before a failed step has sampled."""
            metrics()
            self._step, self._buffered_inputs = step, kept

        return rewind

    def _sizes(self, inputs: Any) -> dict[str, int]:
        """Changed: a batch of evaluation is a list of rows."""
        return {"rows": len(inputs)}

    def _save_rng_state(self, output_dir: str) -> None:
        """Changed: adds the completions that later steps still learn from, and the place among them."""
        super()._save_rng_state(output_dir)
        passes = self.args.steps_per_generation * self.num_iterations
        kept = self._buffered_inputs if self._step % passes else None
        tensors = {
            f"{place}.{name}": value.clone()  # micro-batches share what belongs to the whole batch
            for place, batch in enumerate(kept or ())
            for name, value in batch.items()
        }
        save_file(tensors, self._rollouts_path(output_dir), metadata={"step": json.dumps(self._step)})

    def _run_epoch(self, **kwargs: Any) -> None:
        """Changed: a resumed run goes on with the completions that it had sampled."""
        checkpoint = kwargs["resume_from_checkpoint"]
        if checkpoint is not None and kwargs["epoch"] == kwargs["epochs_trained"]:
            self._load_rollouts(self._rollouts_path(checkpoint))
        super()._run_epoch(**kwargs)

    def _rollouts_path(self, folder: str) -> Path:
        return Path(folder) / ROLLOUTS_FILE.format(rank=self.accelerator.process_index)

    def _load_rollouts(self, path: Path) -> None:
        if not path.is_file():
            raise UserError(f"{path}: is missing; go on from another checkpoint with --resume PATH")
        with safe_open(path, framework="pt", device=str(self.accelerator.device)) as file:
            self._step = json.loads(file.metadata()["step"])
            batches: list[dict[str, Tensor]] = [{} for _ in range(self.args.steps_per_generation)]
            for key in file.keys():  # noqa: SIM118 (no mapping)
                place, _, name = key.partition(".")
                batches[int(place)][name] = file.get_tensor(key)
        self._buffered_inputs = batches if batches[0] else None
        if self._buffered_inputs is None and self._step % self.args.steps_per_generation:
            self._step = 0  # micro-batches have changed, which are counted here: the next one samples


def _label(name: str) -> Any:
    """What TRL is given for a reward: it reads the name, and our own method computes the value."""

    def reward() -> None:
        """Stands for a reward by its name; never called."""
        raise AssertionError("rewards are computed by _calculate_rewards")

    reward.__name__ = name
    return reward
