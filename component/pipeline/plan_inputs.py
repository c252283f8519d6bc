"""What the planner asks of its surroundings: sizes of a model, a card and a loader, without torch and the network."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from component.config.errors import UserError
from component.config.keys import LANGUAGE_MODEL_TASKS
from component.config.load import Config
from component.config.nodes import excerpt
from component.models.families import family_of
from component.models.model_files import ADAPTER_FILE, CONFIG_FILE, adapter_base, local_path, read_model_json
from component.models.padded_rows import needs_mask
from component.models.precision import Precision
from component.pipeline.choose_loader import LoaderChoice, foresee_loader
from component.pipeline.completions import num_training_rows
from component.planning.gpus import GIB, GPUS, Gpu, describe_gpu
from component.planning.known_shapes import KNOWN_CONFIGS, KNOWN_POSITIONS
from component.planning.read_config import DataSize, Setting
from component.planning.shape import FUSED_PROJECTIONS, ModelShape, missing_size, read_shape
from component.runtime.allocator import segments_grow
from component.runtime.environment import nvidia_gpus
from component.runtime.hardware import Hardware
from component.trainers.liger import choose_liger
from component.trainers.loss_choice import foresee_whole, why_whole

#: For a card that is in no table.
ANY_CARD = (
    "for another card name the nearest with as much memory or more, and its own in GiB, as with --gpu 3090 "
    "max_memory_gib=12"
)
#: Families whose class in transformers has no SDPA: attention sinks are beyond it.
ONLY_EAGER = ("gpt_oss",)
#: Family -> cap of its attention scores where config.json does not say, as transformers has it; SDPA leaves caps out.
USUAL_CAPS = {"gemma2": 50.0}
#: Owner and name on the hub; what begins with a dot is a folder.
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+$")


def offline_model_config(name: str) -> Mapping[str, Any] | None:
    """config.json of a folder or of the hub's local cache, or what is known of a published one; no network is used.

    Raises:
        UserError: it cannot be looked for, or read.
    """
    folder = local_path(name)
    adapter = folder / ADAPTER_FILE
    if adapter.is_file() and not (folder / CONFIG_FILE).is_file():
        name = adapter_base(adapter, read_model_json(adapter))
        folder = local_path(name)
    if folder.is_dir():
        return read_model_json(folder / CONFIG_FILE) if (folder / CONFIG_FILE).is_file() else None
    cache = Path(os.environ.get("HF_HOME") or Path.home() / ".cache/huggingface") / "hub"
    cached = Path(os.environ.get("HF_HUB_CACHE") or cache) / f"models--{name.replace('/', '--')}"
    if cached.is_dir():
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(name, CONFIG_FILE)
        if isinstance(found, str):
            return read_model_json(Path(found))
    known = KNOWN_CONFIGS.get(name)
    return None if known is None else {**known, "max_position_embeddings": KNOWN_POSITIONS[name]}


def offline_adapter_config(name: str) -> Mapping[str, Any]:
    """adapter_config.json of a folder; empty where there is none."""
    file = local_path(name) / ADAPTER_FILE
    return read_model_json(file) if file.is_file() else {}


def offline_adapter(name: str) -> str | None:
    """The adapter of that name that training goes on from, if it is the folder of one; None if it is not."""
    return name if offline_adapter_config(name) else None


def expected_loader(config: Config, model_config: Mapping[str, Any], hardware: Hardware) -> LoaderChoice:
    """The loader that a config gets on a card where all is installed.

    Raises:
        UserError: `use_unsloth: require` cannot be met.
    """
    adapter = offline_adapter(config.model.model_name_or_path)
    return foresee_loader(config.model, hardware, model_config, adapter=adapter)


def named_gpu(name: str) -> Gpu:
    """A card by its name on the command line, or as plans and drivers write it: 4090, RTX 4090, a100-80, A100 80 GB.

    Raises:
        UserError: there is none of that name, or several.
    """
    wanted = _bare(name)
    for key, gpu in GPUS.items():
        if wanted in (_bare(key), _bare(gpu.title)):
            return gpu
    close = [key for key in GPUS if wanted and _bare(key).startswith(wanted)]
    fix = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(GPUS)}; {ANY_CARD}"
    raise UserError(f"--gpu: no card is called {excerpt(repr(name))}; {fix}")


def _bare(name: str) -> str:
    """What tells cards apart: not the maker and the series, how the card is built in, or a unit."""
    return re.sub(r"nvidia|geforce|rtx|tesla|sxm\d?|pcie|hbm\d?e?|gi?b\b|[^a-z0-9]", "", name.lower())


def planned_gpu(name: str | None) -> Gpu | None:
    """The card that is named, or this machine's; None where there is neither.

    Raises:
        UserError: no card has that name, or this machine's has a memory that its driver's tool does not tell.
    """
    card = own_gpu() if name is None else named_gpu(name)
    if card is None and (found := nvidia_gpus()):
        raise UserError(
            f"--gpu: nvidia-smi does not tell how much memory {found[0]['name']} has, but says "
            f"{excerpt(repr(found[0]['memory']))}; {ANY_CARD}"
        )
    return card


def own_gpu() -> Gpu | None:
    """The first NVIDIA card of this machine whose memory its driver's tool tells.

    It does not where the card shares the host's, as NVIDIA GB10.
    """
    for found in nvidia_gpus():
        if size := re.fullmatch(r"(\d+) MiB", found["memory"]):
            return describe_gpu(found["name"], float(size[1]) * 2**20, None)
    return None


def imagined_hardware(card: Gpu) -> Hardware:
    """A card as `detect_hardware` would describe it."""
    memory = int(card.memory_bytes)
    return Hardware("cuda", card.title, memory, memory, card.capability, card.supports_bf16, 1)


def size_of(config: Config, samples: Any) -> DataSize:
    """What a plan needs to know of samples.

    Args:
        samples: prepared, with the `lengths` of each in tokens as an array of numpy's.
    """
    lengths = samples.lengths
    num_rows, longest_pack, learned_share = len(lengths), 0, 1.0
    is_language_model_task = config.model.task_type in LANGUAGE_MODEL_TASKS
    if is_language_model_task:
        learned_share = float(samples.num_supervised_tokens.sum() / lengths.sum())
    if is_language_model_task and config.training.packing:
        from component.data.packing import pack

        packs = pack(lengths, capacity=config.training.max_seq_length)
        num_rows, longest_pack = len(packs), int(max(lengths[rows].sum() for rows in packs))
    num_rows = num_training_rows(config, num_rows)
    return DataSize(num_rows, float(lengths.mean()), int(lengths.max()), longest_pack, learned_share)


def setting_of(
    config: Config, model_config: Mapping[str, Any], hardware: Hardware, loader: str, precision: Precision
) -> Setting:
    """What a config gets from a device, its loader and what is installed, by the rules of the run itself."""
    liger = choose_liger(
        config.training.use_liger_kernel,
        task_type=config.model.task_type,
        loader=loader,
        hardware=hardware,
        model_type=str(model_config.get("model_type")),
        is_tiled=config.model.tiled_mlp,
    )
    is_whole = why_whole(config.training, loader=loader, has_liger=liger.got) or foresee_whole(
        config.model, config.adapter, model_config
    )
    dense = _dense_attention(model_config, hardware, precision.compute_dtype)
    return Setting(
        loader,
        precision.load_dtype,
        precision.compute_dtype,
        supports_varlen=_supports_varlen(model_config, hardware),
        has_liger=liger.got,
        chunks_loss=not is_whole,
        attention=dense,
        masks_padding=loader != "unsloth" and _masks_padding(config, model_config, dense),
        grows_segments=segments_grow(is_wanted=may_grow_segments(config)),
    )


def may_grow_segments(config: Config) -> bool:
    """Whether torch's segments may grow: vLLM brings an allocator that does not go with it."""
    return not (config.model.task_type == "grpo" and config.grpo.use_vllm)


def _masks_padding(config: Config, model_config: Mapping[str, Any], dense: str) -> bool:
    """Whether rows that are padded come with a mask, through the vanilla loader.

    Args:
        dense: the attention of rows that are not packed, under `auto`.
    """
    asked = config.model.attn_implementation
    attention = dense if asked == "auto" else asked
    is_left_out = config.model.task_type in LANGUAGE_MODEL_TASKS
    return not is_left_out or needs_mask(model_config, attention)


def _supports_varlen(model_config: Mapping[str, Any], hardware: Hardware) -> bool:
    """Whether packed rows of the vanilla loader run on a variable-length kernel, as `choose_attention` has it."""
    is_plain = model_config.get("model_type") not in ONLY_EAGER and not model_config.get("attention_dropout")
    return is_plain and _is_ampere(hardware)


def _dense_attention(model_config: Mapping[str, Any], hardware: Hardware, compute_dtype: str) -> str:
    """What `choose_attention` takes for the other rows.

    flash-attn is asked for only where SDPA cannot be: to the planner, both take as much for rows of equal length.
    """
    family = model_config.get("model_type")
    if family not in ONLY_EAGER and not model_config.get("attn_logit_softcapping", USUAL_CAPS.get(family)):
        return "sdpa"
    has_flash = _is_ampere(hardware) and compute_dtype != "float32" and find_spec("flash_attn") is not None
    return "flash_attention_2" if has_flash else "eager"


def _is_ampere(hardware: Hardware) -> bool:
    capability = hardware.compute_capability
    return hardware.kind == "cuda" and (capability is None or capability >= (8, 0))


def limited(card: Gpu | None, config: Config) -> Gpu | None:
    """A card with no more memory than the config lets the run take."""
    cap = config.training.max_memory_gib
    if card is None or cap is None:
        return card
    return replace(card, memory_bytes=min(card.memory_bytes, cap * GIB))


def find_model_config(config: Config) -> Mapping[str, Any]:
    """config.json of a config's model.

    Raises:
        UserError: it is neither here nor known, or would not help.
    """
    name = config.model.model_name_or_path
    found = offline_model_config(name)
    if found is not None:
        return found
    family = family_of(name)
    if family is not None and family not in FUSED_PROJECTIONS:
        raise _unknown_layers(name, family)
    download = f"`hf download {name} {CONFIG_FILE}` where the hub can be reached, or " if HUB_ID.match(name) else ""
    raise UserError(
        f"model_name_or_path: shape unknown offline: {name} is no folder with {CONFIG_FILE}, not in the hub's cache "
        f"and not one of the known models, and plans use no network; use {download}a folder that holds its "
        f"{CONFIG_FILE}, which is all that is needed"
    )


def _unknown_layers(name: str, family: Any) -> UserError:
    return UserError(
        f"model_name_or_path: {name} is of family {excerpt(repr(family))}, whose layers are not known to the planner; "
        "nothing can be predicted: train.py with max_steps=3 measures memory and speed on the card itself"
    )


def understand_shape(config: Config, model_config: Mapping[str, Any]) -> ModelShape:
    """The sizes in a config.json.

    Raises:
        UserError: the family's layers are not known, or a size is impossible or not given.
    """
    shape = read_shape(model_config)
    if shape is None:
        name, family = config.model.model_name_or_path, model_config.get("model_type")
        if size := missing_size(model_config):
            raise UserError(
                f"model_name_or_path: {name}: {CONFIG_FILE} gives no single number as {size}; without it nothing can "
                "be predicted"
            )
        raise _unknown_layers(name, family)
    return shape
