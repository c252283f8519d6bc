"""Input embeddings and output head that are read into main memory at once, and never are on the device.

The device map of `from_pretrained` cannot say that: beside a device it takes "cpu" for quantized models only as a
setting of the quantization that the files would keep, and it hangs hooks into the model that move weights about.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

#: Key of the config -> method of a model that gives what the key keeps in main memory.
_GETTERS = {"offload_embedding": "get_input_embeddings", "offload_head": "get_output_embeddings"}
#: Name of a model's list of parameters that no device map places; Unsloth reads it before it spreads a model that it
#: finds on several devices over them.
_UNPLACED = "_no_placement_params"


@contextmanager
def read_to_host(keys: Sequence[str]) -> Iterator[set[str]]:
    """Within it, `from_pretrained` reads what `keys` name into main memory, whatever its device map says.

    What is one matrix with the other, or is to be quantized, is left where the map puts it, for the loader to refuse.

    Args:
        keys: those of offload_embedding and offload_head that a run keeps.

    Yields:
        A set that takes up the keys whose weights were read so.
    """
    done: set[str] = set()
    from transformers import PreTrainedModel

    # transformers 5.17 gives the map to this function when the quantizer has seen it, and hangs its hooks by the
    # original. Without it (another version), weights are read as ever and moved afterwards.
    original = getattr(PreTrainedModel, "_load_pretrained_model", None)
    if not keys or original is None:
        yield done
        return
    marked: list[PreTrainedModel] = []

    def load(model: PreTrainedModel, state_dict: Any, files: Any, settings: Any, *rest: Any, **named: Any) -> Any:
        """`_load_pretrained_model` with a device map that has the weights of `keys` in main memory."""
        modules = _modules_of(model, keys)
        names = {name for module in modules.values() for name in _names_of(model, module)}
        if not names or settings.device_map is None:
            return original(model, state_dict, files, settings, *rest, **named)
        host = dict.fromkeys(names, "cpu")
        result = original(
            model, state_dict, files, replace(settings, device_map={**settings.device_map, **host}), *rest, **named
        )
        done.update(modules)
        if _UNPLACED not in vars(model):
            setattr(model, _UNPLACED, [*(getattr(model, _UNPLACED, None) or ()), *names])
            marked.append(model)
        if "offload_embedding" in modules:
            # Read from safetensors it is a view of the file, whose pages the system may drop between two lookups.
            weight: Any = modules["offload_embedding"].weight
            weight.data = weight.data.clone()
        return result

    PreTrainedModel._load_pretrained_model = staticmethod(load)
    try:
        yield done
    finally:
        PreTrainedModel._load_pretrained_model = staticmethod(original)
        for model in marked:
            delattr(model, _UNPLACED)


def explain_detour(keys: Sequence[str], done: set[str]) -> list[str]:
    """Notices of weights that were on the device while the model was loaded, and are moved only then."""
    return [
        f"{key}: these weights are on the device while the model is loaded, and moved to main memory afterwards"
        for key in keys
        if key not in done
    ]


def _modules_of(model: PreTrainedModel, keys: Sequence[str]) -> dict[str, nn.Module]:
    """The modules that `keys` name, by key; none where they share a matrix."""
    from torch import nn

    found = {key: getattr(model, _GETTERS[key])() for key in keys}
    plain = {key: module for key, module in found.items() if type(getattr(module, "weight", None)) is nn.Parameter}
    tied = set(model.all_tied_weights_keys) | set(model.all_tied_weights_keys.values())
    return {key: module for key, module in plain.items() if not tied.intersection(_names_of(model, module))}


def _names_of(model: nn.Module, module: nn.Module) -> list[str]:
    """Names in the model of a module's own parameters."""
    mine = {id(parameter) for parameter in module.parameters(recurse=False)}
    return [name for name, parameter in model.named_parameters() if id(parameter) in mine]
