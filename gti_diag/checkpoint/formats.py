"""Which reader a folder or file needs: a table, tried in order, and the subfolders where weights may lie."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .places import Folder, read_json, whole
from .read_arrays import npz_tokens, read_npy, read_npz
from .read_distributed import Distributed
from .read_gguf import gguf_config, gguf_reader, gguf_vocabulary
from .read_pickle import read_pickle
from .read_safetensors import read_safetensors
from .read_universal import read_universal
from .records import Matrix, Vocabulary, bad
from .shards import indexed, together

# Files of the right kind that hold something else.
OTHER = re.compile(
    r"(codebooks|item_means)\.safetensors|adapter_model\..*|(optimizer|scheduler|scaler|training_args|random_states|rng_state)"
    r".*\.(pt|pth|bin)|.*optim_states\.pt|sids\..*|mmproj.*\.gguf|.*imatrix.*\.gguf"
)
ZERO3_PART = re.compile(r"zero_pp_rank_\d+_mp_rank_\d+_model_states\.pt")
OTHERS = {
    "tf_model.h5",
    "flax_model.msgpack",
    "rust_model.ot",
}  # file names of other frameworks in transformers' folders
DEEPEST = 3
ADAPTER = "peft"


@dataclass(frozen=True)
class Weights:
    """Tensors by name, with what the same file says of configuration and tokens, and the folders passed on the way."""

    format: str
    tensors: Mapping[str, Matrix]
    folders: tuple[Folder, ...]
    files: tuple[str, ...]
    config: Mapping[str, Any] | None = None
    vocabulary: Vocabulary | None = None
    notes: tuple[str, ...] = field(default=())


Content = tuple[Mapping[str, Matrix], Mapping[str, Any] | None, Vocabulary | None]


@dataclass(frozen=True)
class Format:
    """A name, the files of a listing that it reads (none: not this format), and how it reads them."""

    name: str
    claims: Callable[[Sequence[str]], Sequence[str]]
    read: Callable[[Folder, Sequence[str]], Content]


def _ending(*suffixes: str, first: tuple[str, ...] = ()) -> Callable[[Sequence[str]], Sequence[str]]:
    """Claims the first of the names in `first` that exists, else every file with one of the suffixes."""

    def claims(names: Sequence[str]) -> Sequence[str]:
        usual = [name for name in first if name in names]
        return usual[:1] or [n for n in names if n.lower().endswith(suffixes) and not OTHER.fullmatch(n)]

    return claims


def _tensors(
    read: Callable[[Folder, Sequence[str]], Mapping[str, Matrix]],
) -> Callable[[Folder, Sequence[str]], Content]:
    return lambda folder, files: (read(folder, files), None, None)


def _pickles(folder: Folder, files: Sequence[str]) -> Mapping[str, Matrix]:
    part = next((file for file in files if ZERO3_PART.fullmatch(file)), None)
    if part is not None:
        raise bad(f"{folder.root}/{part}", "is one rank's part of a ZeRO-3 model",
                  "run DeepSpeed's zero_to_fp32.py or ds_to_universal.py on the folder first")  # fmt: skip
    return together(folder, files, read_pickle)


def _gguf(folder: Folder, files: Sequence[str]) -> Content:
    if len(files) > 1 and not all(re.search(r"-\d{5}-of-\d{5}\.gguf$", file) for file in files):
        raise bad(folder.root, f"holds several GGUF files ({', '.join(files[:4])})", "name one of them")
    pairs: dict[str, Any] = {}
    tensors = together(folder, files, gguf_reader(pairs))
    config = gguf_config(pairs)
    if "output.weight" not in tensors and not re.search("bert|encoder", str(config["model_type"])):
        config["tie_word_embeddings"] = True
    return tensors, config, gguf_vocabulary(pairs, f"{folder.root}/{files[0]}")


def _npz(folder: Folder, files: Sequence[str]) -> Content:
    return together(folder, files, read_npz), None, npz_tokens(folder, files[0])


FORMATS = (
    Format("safetensors-sharded", _ending(".safetensors.index.json"),
           _tensors(lambda folder, files: indexed(folder, files[0], read_safetensors))),
    Format("safetensors", _ending(".safetensors", first=("model.safetensors",)),
           _tensors(lambda folder, files: together(folder, files, read_safetensors))),
    Format("pytorch-sharded", _ending(".bin.index.json"),
           _tensors(lambda folder, files: indexed(folder, files[0], read_pickle))),
    Format("pytorch", _ending(".bin", ".pt", ".pth", ".ckpt", first=("pytorch_model.bin",)), _tensors(_pickles)),
    Format("gguf", _ending(".gguf"), _gguf),
    Format("distributed", lambda names: [name for name in names if name == ".metadata"],
           _tensors(lambda folder, files: Distributed(folder))),
    Format("npy", _ending(".npy"), _tensors(lambda folder, files: together(folder, files, read_npy))),
    Format("npz", _ending(".npz"), _npz),
)  # fmt: skip


WORD2VEC = re.compile(rb"\d+ \d+ ?\r?\n")  # number and width of the vectors, in text and in binary
GLOVE = re.compile(rb"\S+(?: -?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?){8,}")


def _refuse_word_vectors(folder: Folder, name: str) -> None:
    """Vectors of words as word2vec, fastText and GloVe write them are one line away from a format that is read.

    Raises:
        InputError: the file is such a one; how to convert it.
    """
    start = folder.spans(name, [(0, min(folder.size(name), 4096))]).tobytes()
    counted = WORD2VEC.match(start) is not None
    if not counted and GLOVE.match(start) is None:
        return
    binary = counted and not start.split(b"\n", 1)[-1].isascii()
    how = f"binary={binary}" if counted else "no_header=True"
    raise bad(f"{folder.root}/{name}", "holds word vectors, which are not read as they are",
              f"convert them: v = gensim.models.KeyedVectors.load_word2vec_format({name!r}, {how}); "
              "numpy.savez('vectors.npz', vectors=v.vectors, tokens=v.index_to_key)")  # fmt: skip


def read_weights(folder: Folder, file: str | None = None) -> Weights:
    """The weights of a folder, of one of its files, or of the subfolder where the folder's kind keeps them.

    A PEFT adapter goes before weights beside it; its tensors are those of the adapter alone (format `ADAPTER`).

    Raises:
        InputError: there are none, or they are damaged.
    """
    adapter = file is not None and file.startswith("adapter_") and "adapter_config.json" in folder.names()
    if file is not None and not adapter:
        if file.lower().endswith((".bin", ".vec", ".txt", ".glove", ".w2v")):
            _refuse_word_vectors(folder, file)
        return _known(folder, (file,), (folder,)) or _refuse(f"{folder.root}/{file}", "is of no known weights format")
    found = _walked((folder,))
    if found is None and (others := sorted(OTHERS.intersection(folder.names()))):
        raise bad(f"{folder.root}/{others[0]}", "holds weights of another framework, which are not read",
                  "load them with transformers 4 (from_tf=True or from_flax=True), save_pretrained and name that folder")  # fmt: skip
    kinds = "safetensors, .bin, .pt, .pth, .ckpt, .gguf, .npy, .npz, .metadata"
    return found or _refuse(
        folder.root, f"holds no weights (none of {kinds})", "give the folder that holds the checkpoint"
    )


def _walked(way: tuple[Folder, ...]) -> Weights | None:
    """The weights of the last folder of the way (it comes first), else of the first subfolder that has some."""
    here = way[0]
    if "adapter_config.json" in here.names():
        return _adapter(here, way)
    if "zero" in here.folders():
        return Weights("deepspeed-universal", read_universal(here), way, ())
    found = _known(here, here.names(), way)
    if found is not None or len(way) == DEEPEST:
        return found
    empty: list[str] = []
    beside = (here.into("tokenizer"),) if _is_pipeline(here) and "tokenizer" in here.folders() else ()
    for below in _below(here):
        found = _walked((here.into(below), *beside, *way))
        if found is not None:
            skipped = f"; {', '.join(empty)} holds none" if empty else ""
            return replace(found, notes=(f"weights found in {below}/{skipped}", *found.notes))
        empty.append(f"{below}/")
    return None


def _refuse(where: str, problem: str, fix: str = "") -> Weights:
    raise bad(where, problem, fix)


def _known(folder: Folder, names: Sequence[str], way: tuple[Folder, ...]) -> Weights | None:
    for format in FORMATS:
        files = format.claims(names)
        if files:
            name = "safetensors-sharded" if format.name == "safetensors" and len(files) > 1 else format.name
            tensors, config, vocabulary = format.read(folder, files)
            return Weights(name, tensors, way, tuple(files), config, vocabulary)
    return None


def _below(folder: Folder) -> Sequence[str]:
    """The subfolders to look into, best first: named by a file, else the steps from the last, else the usual names."""
    names, folders = folder.names(), folder.folders()
    for pointer in ("latest_universal", "latest"):  # DeepSpeed
        if pointer in names and folder.size(pointer) < 200:
            tag = whole(folder, pointer).decode("utf-8", "replace").strip()
            if tag in folders:
                return [f"{tag}_universal" if f"{tag}_universal" in folders else tag]
    if _is_pipeline(folder):
        return [name for name in ("text_encoder",) if name in folders]
    if "modules.json" in names:  # sentence-transformers before version 3 keep the transformer in a subfolder
        listed = _modules(folder)
        return [name for name in listed if name in folders][:1]
    steps = [
        (int(found[1]), name)
        for name in folders
        if (found := re.fullmatch(r"(?:checkpoint-|global_step)(\d+).*", name))
    ]
    if steps:
        return [name for _, name in sorted(steps, reverse=True)]
    usual = ("pytorch_model_fsdp_0", "pytorch_model_fsdp", "model", "pytorch_model", "weights", "model_weights")
    return [name for name in usual if name in folders]


def _is_pipeline(folder: Folder) -> bool:
    """Whether the folder is one of diffusers' pipelines, with a folder for each of its models."""
    return "model_index.json" in folder.names()


def _modules(folder: Folder) -> list[str]:
    import json

    try:
        return [str(entry["path"]) for entry in json.loads(whole(folder, "modules.json"))]
    except (ValueError, TypeError, KeyError) as error:
        raise bad(f"{folder.root}/modules.json", "is not a list of modules with paths") from error


def first_with(folders: Sequence[Folder], name: str) -> Folder | None:
    """The nearest folder on the way that has a file `name`."""
    return next((folder for folder in folders if name in folder.names()), None)


def _adapter(folder: Folder, way: tuple[Folder, ...]) -> Weights:
    """A PEFT adapter: its own tensors, its own configuration."""
    for file, read in (("adapter_model.safetensors", read_safetensors), ("adapter_model.bin", read_pickle)):
        if file in folder.names():
            return Weights(ADAPTER, read(folder, file), way, (file,), read_json(folder, "adapter_config.json"))
    raise bad(folder.root, "has an adapter_config.json but no adapter_model.safetensors")
