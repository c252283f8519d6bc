"""Everything before the weights: device, loader, tokenizer, template, data; `--dry_run` ends here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from loguru import logger

from component.config.choices import REPORTERS
from component.config.errors import MachineError, UserError
from component.config.hint import Hint
from component.config.load import Config
from component.config.schema import schema_fields
from component.config.settle import without_foreign_values
from component.models.decoder_layers import check_skipped, check_trained
from component.models.fp8_base import check_fp8_base
from component.models.model_files import configure_hub, read_model_config
from component.models.precision import Precision, resolve_precision
from component.models.preparing import (
    check_one_process,
    check_shared_head,
    num_layers,
    offloaded_keys,
    offloads_embedding,
)
from component.models.quantization import check_quantization
from component.pipeline.batches import settle_batches
from component.pipeline.choose_loader import LoaderChoice, choose_loader
from component.pipeline.completions import check_completions, check_prompts, num_training_rows
from component.pipeline.hints import run_hints
from component.pipeline.output_folder import check_output_dir
from component.pipeline.plan_inputs import may_grow_segments
from component.pipeline.settle_run import settle_prepared
from component.pipeline.template_date import fix_template_date
from component.registry import TASKS, row_kind_of
from component.runtime.allocator import expand_segments, repeat_sums, shrink_workspaces
from component.runtime.collection import importing
from component.runtime.compile_caches import keeping_kernels
from component.runtime.distributed import rank, use_one_gpu, world_size
from component.runtime.hardware import Hardware, detect_hardware
from component.runtime.logging import configure_logging
from component.runtime.redaction import hide
from component.runtime.seeds import seed_everything
from component.runtime.stopwatch import Stopwatch
from component.trainers.packing import check_packable

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from component.data.prepare import PreparedData
    from component.pipeline.rendering import Rendering
    from component.trainers.task import Task


@dataclass(frozen=True)
class PreparedRun:
    """A run that is ready to load its weights.

    Attributes:
        model_config: config.json of the model, or of the base of an adapter.
        rendering: what made the tokens; a renderer makes prompts too.
        notices: all that was changed, ignored or fell back so far, one line each.
        hints: choices that work and are seldom meant.
        auto: what the config left to the card and what was chosen, for run.json; empty where it left nothing.
    """

    config: Config
    hardware: Hardware
    model_config: Mapping[str, Any]
    precision: Precision
    loader: LoaderChoice
    tokenizer: PreTrainedTokenizerBase
    rendering: Rendering
    data: PreparedData
    notices: tuple[str, ...]
    hints: tuple[Hint, ...]
    auto: Mapping[str, Any] = field(default_factory=dict)

    @property
    def task(self) -> Task:
        """The training type."""
        return TASKS.get(self.config.model.task_type)

    @property
    def section(self) -> Any:
        """The config section of the training type."""
        return getattr(self.config, self.task.section)


def prepare(config: Config, watch: Stopwatch | None = None) -> PreparedRun:
    """Prepare a run up to its weights.

    Args:
        watch: takes the times of imports and data.

    Raises:
        UserError: a package is missing, or model, tokenizer or data cannot be used.
    """
    hide(config.from_environment)
    configure_logging(None, rank())
    config = settle_batches(without_foreign_values(config))
    check_packages(config)
    check_completions(config)
    check_output_dir(config)
    config = fix_template_date(config)
    if not config.training.use_cpu:
        expand_segments(is_wanted=may_grow_segments(config))
        repeat_sums(is_wanted=config.training.full_determinism)
        shrink_workspaces(is_wanted=config.model.offload_embedding is True)
    notices = [str(notice) for notice in config.notices]
    configure_hub(config.model)
    with importing("torch"):
        one_gpu = None if config.training.use_cpu else use_one_gpu()
        hardware = detect_hardware(config.training.use_cpu)
    model_config = read_model_config(config.model)
    check_quantization(model_config, config.model.train_mode)
    check_packable(config.training.packing, model_config)
    check_skipped(config.model.checkpoint_skip_layers, num_layers(model_config))
    check_trained(config.model.freeze_trainable_layers, num_layers(model_config))
    check_shared_head(offloaded_keys(config.model, hardware), model_config)
    check_one_process(offloaded_keys(config.model, hardware))
    loader = choose_loader(config.model, config.model.task_type, hardware)
    with keeping_kernels(), importing("loader"):
        if loader.got == "unsloth":
            from component.models.unsloth_import import import_unsloth

            import_unsloth(config.model, hardware)
    precision = resolve_precision(config.model, hardware)
    check_fp8_base(config.model, hardware, precision)
    notices += [*([one_gpu] if one_gpu else []), *machine_notices(config, hardware), *loader_notices(config, loader)]
    return _prepare_data(config, hardware, model_config, loader, precision, notices, watch or Stopwatch())


def _prepare_data(
    config: Config,
    hardware: Hardware,
    model_config: Mapping[str, Any],
    loader: LoaderChoice,
    precision: Precision,
    notices: list[str],
    watch: Stopwatch,
) -> PreparedRun:
    with importing("data"):
        # This imports transformers, which must come after Unsloth.
        from component.pipeline.run_data import prepare_run_data

    watch.switch("data")
    configure_logging(None, rank())  # once more: the libraries install handlers of their own when imported
    seed_everything(config.model.seed)
    prepared = prepare_run_data(config, row_kind_of(config.model.task_type))
    settled = settle_prepared(config, hardware, loader.got, precision, model_config, prepared.data.train)
    config = settled.config
    # Once more, as auto is settled only now: the loader is imported, and nothing was multiplied yet.
    shrink_workspaces(is_wanted=offloads_embedding(config.model, hardware))
    prompts = check_prompts(config, prepared.data)
    num_rows = num_training_rows(config, len(prepared.data.train))
    check_steps(config, num_rows)
    return PreparedRun(
        config=config,
        hardware=hardware,
        model_config=model_config,
        precision=precision,
        loader=loader,
        tokenizer=prepared.tokenizer,
        rendering=prepared.rendering,
        data=prepared.data,
        notices=(*notices, *prepared.notices, *settled.notices, *prompts),
        hints=run_hints(config, hardware, prepared.data, num_rows=num_rows),
        auto=settled.facts,
    )


def check_steps(config: Config, num_samples: int) -> None:
    """Refuse a run that would train nothing.

    Raises:
        UserError: fewer samples than a batch, and incomplete batches are dropped.
    """
    training = config.training
    if training.dataloader_drop_last and num_samples < training.per_device_train_batch_size * world_size():
        raise UserError(
            f"dataloader_drop_last: true leaves no batch of {num_samples} samples with per_device_train_batch_size "
            f"{training.per_device_train_batch_size}; lower it, or set dataloader_drop_last: false"
        )


def check_packages(config: Config) -> None:
    """Refuse settings whose package is not installed.

    Raises:
        MachineError: one line for each package.
    """
    needed = {f"report_to: {name}": REPORTERS[name] for name in config.training.report_to if REPORTERS[name]}
    if config.training.use_liger_kernel is True:
        needed["use_liger_kernel"] = "liger_kernel"
    if config.model.task_type == "grpo" and config.grpo.use_vllm:
        needed["use_vllm"] = "vllm"
    missing = [
        f"{key}: the package {package} is not installed; pip install {package.replace('_', '-')}, or drop the setting"
        for key, package in needed.items()
        if find_spec(package) is None
    ]
    if missing:
        raise MachineError(*missing)


def machine_notices(config: Config, hardware: Hardware) -> Iterator[str]:
    """What this machine changes about the settings.

    Raises:
        MachineError: DeepSpeed is asked for on a GPU and not installed.
    """
    training = config.training
    if training.deepspeed and hardware.kind != "cpu" and find_spec("deepspeed") is None:
        raise MachineError("deepspeed: the package is not installed; pip install deepspeed, or set deepspeed=null")
    if training.deepspeed and hardware.kind == "cpu":
        yield "deepspeed: ignored on a CPU; one process trains without sharding"
    if training.max_memory_gib is not None and hardware.kind != "cuda":
        yield f"max_memory_gib: {training.max_memory_gib:g} is planned with; nothing limits the memory of this device"
    if training.optim.startswith("paged_") and hardware.kind == "cpu":
        yield f"optim: {training.optim} does not page on a CPU; its states stay in main memory"


def loader_notices(config: Config, loader: LoaderChoice) -> Iterator[str]:
    """Keys that the chosen loader does not read, and the loader itself where it is not the one asked for."""
    if loader.notice is not None:
        logger.warning(loader.notice)
        yield loader.notice
    for key, place in config.places.items():
        readers = schema_fields()[key].metadata["loaders"]
        if readers is not None and loader.got not in readers:
            yield f"{place}: {key}: ignored; the {loader.got} loader does not read it, only {', '.join(readers)}"
