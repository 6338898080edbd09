"""Checkpoints that are not on this machine: fsspec URLs by byte range, hub ids by the files needed."""

import bisect
import functools
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gti_diag.errors import InputError

from .places import Folder, LocalFolder
from .records import bad

# The oldest models of the hub have no owner in their id: gpt2, bert-base-uncased.
HUB_ID = re.compile(r"(?P<repo>(?:[\w-][\w.-]*/)?[\w-][\w.-]*)(?:@(?P<revision>[\w./-]+))?")
FILE = re.compile(r".*\.(?:safetensors|bin|pt|pth|ckpt|gguf|np[yz]|json|txt|vec)", re.IGNORECASE)
# Asked for one by one where a web server gives no listing.
USUAL_NAMES = (
    "config.json", "model.safetensors.index.json", "model.safetensors", "pytorch_model.bin.index.json",
    "pytorch_model.bin", "adapter_config.json", "adapter_model.safetensors", "gti.json", "tokenizer.json",
    "tokenizer_config.json", "added_tokens.json", "special_tokens_map.json", "vocab.json", "vocab.txt",
    "tokenizer.model", "spiece.model", "modules.json",
)  # fmt: skip
AT_ONCE = 64 * 1024 * 1024


def place(path: str | Path) -> tuple[Folder, str | None]:
    """The folder that `path` means, and the file in it if it names one.

    Tried in order: a URL, a local folder or file, a hub id `owner/name` or `name`, with or without `@revision`.

    Raises:
        InputError: nothing is there.
    """
    text = str(path)
    if re.match(r"[a-z][a-z0-9+.-]*://", text):
        return _url(text)
    local = Path(path).expanduser()
    try:
        if local.is_dir():
            return LocalFolder(str(local)), None
        if local.is_file():
            return LocalFolder(str(local.parent)), local.name
        below = "/" in text and local.parent.is_dir()
    except (OSError, ValueError) as error:  # ValueError: a name no file can have
        raise bad(repr(text), f"cannot be read ({getattr(error, 'strerror', None) or error})") from error
    hub = HUB_ID.fullmatch(text)
    if hub is not None and not below and not FILE.fullmatch(text):
        return _hub(hub["repo"], hub["revision"]), None
    raise bad(path, "does not exist", "give a checkpoint folder, a file, a URL or a hub id owner/name")


# --- fsspec ---------------------------------------------------------------------------------------------------------


class Kept:
    """The bytes of a far file that have been here, in a nameless sparse file: no byte travels twice."""

    def __init__(self) -> None:
        self.file = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the folder)
        self.have: list[tuple[int, int]] = []  # sorted, disjoint, not touching

    def missing(self, start: int, stop: int) -> list[tuple[int, int]]:
        """The parts of start..stop that are not here."""
        found, at = [], start
        for a, b in self.have[bisect.bisect_left(self.have, start, key=lambda pair: pair[1]) :]:
            if a >= stop:
                break
            if a > at:
                found.append((at, a))
            at = max(at, b)
        if at < stop:
            found.append((at, stop))
        return found

    def put(self, spans: Sequence[tuple[int, int]], data: np.ndarray) -> None:
        at = 0
        for start, stop in spans:
            self.file.seek(start)
            self.file.write(data[at : at + stop - start].data)
            at += stop - start
        merged: list[tuple[int, int]] = []
        for start, stop in sorted([*self.have, *spans]):
            if merged and start <= merged[-1][1]:
                merged[-1] = merged[-1][0], max(stop, merged[-1][1])
            else:
                merged.append((start, stop))
        self.have = merged

    def get(self, spans: Sequence[tuple[int, int]]) -> np.ndarray:
        out, at = np.empty(sum(stop - start for start, stop in spans), dtype=np.uint8), 0
        for start, stop in spans:
            self.file.seek(start)
            at += self.file.readinto(out[at : at + stop - start].data)
        return out


@dataclass(frozen=True)
class FarFolder:
    """A folder of an fsspec file system."""

    fs: Any = field(repr=False)
    path: str
    listed: tuple[str, ...] | None = None  # where the store cannot list
    kept: dict[str, Kept] = field(default_factory=dict, repr=False, compare=False)

    @property
    def root(self) -> str:
        return self.fs.unstrip_protocol(self.path)

    def _full(self, name: str) -> str:
        return f"{self.path.rstrip('/')}/{name}"

    def _ask(self, what: str, call: Any) -> Any:
        try:
            return call()
        except (InputError, KeyboardInterrupt):
            raise
        except Exception as error:  # every store has its own exceptions
            reason = " ".join(str(error).split()) or type(error).__name__
            raise bad(what, f"cannot be read ({reason[:200]})") from error

    @functools.cached_property
    def _entries(self) -> list[dict]:
        found = self._ask(self.root, lambda: self.fs.ls(self.path, detail=True))
        return [entry for entry in found if entry["name"].rstrip("/") != self.path.rstrip("/")]

    def names(self) -> tuple[str, ...]:
        if self.listed is not None:
            return self.listed
        files = [entry["name"] for entry in self._entries if entry["type"] == "file"]
        return tuple(sorted({name.rsplit("/", 1)[-1] for name in files if not name.endswith("/")}))

    def folders(self) -> tuple[str, ...]:
        if self.listed is not None:
            return ()
        found = {e["name"].rstrip("/").rsplit("/", 1)[-1] for e in self._entries if e["type"] == "directory"}
        return tuple(sorted(found))

    def into(self, name: str) -> "FarFolder":
        return FarFolder(self.fs, self._full(name))

    def size(self, name: str) -> int:
        size = self._ask(f"{self.root}/{name}", lambda: self.fs.size(self._full(name)))
        if size is None:
            raise bad(f"{self.root}/{name}", "has no known size", "the server must say Content-Length")
        return size

    def spans(self, name: str, spans: Sequence[tuple[int, int]]) -> np.ndarray:
        kept = self.kept.setdefault(name, Kept())
        for start, stop in spans:
            missing = kept.missing(start, stop)
            if missing:
                kept.put(missing, self._fetched(name, missing))
        return kept.get(spans)

    def _fetched(self, name: str, spans: Sequence[tuple[int, int]]) -> np.ndarray:
        full, where = self._full(name), f"{self.root}/{name}"
        out, at = np.empty(sum(stop - start for start, stop in spans), dtype=np.uint8), 0
        pieces = [(a, min(a + AT_ONCE, stop)) for start, stop in spans for a in range(start, stop, AT_ONCE)]
        for first in range(0, len(pieces), 256):
            batch = pieces[first : first + 256]
            starts, stops = [a for a, _ in batch], [b for _, b in batch]
            parts = self._ask(
                where, lambda a=starts, b=stops: self.fs.cat_ranges([full] * len(a), a, b, on_error="raise")
            )
            for (start, stop), data in zip(batch, parts, strict=True):
                if len(data) != stop - start:
                    raise bad(
                        where,
                        f"gave {len(data)} bytes for the range {start}..{stop}",
                        "it is truncated, or the server ignores ranges",
                    )
                out[at : at + len(data)] = np.frombuffer(data, dtype=np.uint8)
                at += len(data)
        return out

    def identity(self, name: str) -> str | None:
        info = self._ask(f"{self.root}/{name}", lambda: self.fs.info(self._full(name)))
        kept = {key: str(info[key]) for key in sorted(info) if key.lower() in IDENTITY_KEYS}
        return f"{name} {kept}"


IDENTITY_KEYS = {
    "etag",
    "sha256",
    "md5hash",
    "crc32c",
    "checksum",
    "blob_id",
    "last_commit",
    "mtime",
    "created",
    "size",
}


def _url(url: str) -> tuple[Folder, str | None]:
    import fsspec

    try:
        if url.startswith(("http://", "https://")):
            from .http import CountedHTTP

            fs, path = CountedHTTP(), url
        else:
            fs, path = fsspec.core.url_to_fs(url)
    except InputError:
        raise
    except ImportError as error:
        raise bad(url, f"needs a package that is not installed ({error})") from error
    except Exception as error:  # unknown protocols and bad addresses, each in its own way
        raise bad(url, f"is not a usable address ({' '.join(str(error).split())[:200]})") from error
    path = path.rstrip("/")
    above, _, last = path.rpartition("/")
    file = last if "." in last and _is_file(fs, path) else None
    home = path if file is None else above
    if not url.startswith(("http://", "https://")):
        return FarFolder(fs, home), file
    names = tuple(name for name in USUAL_NAMES if name != file and _is_file(fs, f"{home}/{name}"))
    if not names and file is None:
        _reach(fs, path, url)
        raise bad(url, "has no checkpoint file of a usual name under it", "give the address of the weights file")
    own = (file,) if file is not None else ()
    return FarFolder(fs, home, listed=(*own, *names, *_shards_named(fs, home, names))), file


def _reach(fs: Any, path: str, url: str) -> None:
    """Ask once more in the open: that a server does not answer looks like a missing file until here."""
    try:
        fs.cat_file(path, start=0, end=1)
    except FileNotFoundError:
        return
    except InputError:
        raise
    except Exception as error:  # every store has its own exceptions
        raise bad(url, f"cannot be reached ({' '.join(str(error).split())[:200]})") from error


def _is_file(fs: Any, path: str) -> bool:
    try:
        return fs.isfile(path)
    except InputError:  # too slow to be asked again
        raise
    except Exception:  # a store that denies the question: the listing that follows will say why
        return False


def _shards_named(fs: Any, path: str, names: Sequence[str]) -> list[str]:
    """The files that an index names, for servers without listings; a wrong index is told when it is read."""
    import json

    for index in (name for name in names if name.endswith(".index.json")):
        try:
            files = set(json.loads(fs.cat_file(f"{path}/{index}"))["weight_map"].values())
            return sorted(file for file in files if _is_file(fs, f"{path}/{file}"))
        except Exception:  # the same file is read again, and refused in words, by the index reader
            return []
    return []


# --- the hub --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HubFolder:
    """A model repository at one commit; a file comes to the hub's own cache when its bytes are first wanted."""

    repo: str
    commit: str
    files: tuple[str, ...]
    within: str = ""

    @property
    def root(self) -> str:
        return f"{self.repo}@{self.commit[:8]}" + (f"/{self.within}" if self.within else "").rstrip("/")

    def _here(self) -> list[str]:
        return [file[len(self.within) :] for file in self.files if file.startswith(self.within)]

    def names(self) -> tuple[str, ...]:
        return tuple(sorted(file for file in self._here() if "/" not in file))

    def folders(self) -> tuple[str, ...]:
        return tuple(sorted({file.split("/", 1)[0] for file in self._here() if "/" in file}))

    def into(self, name: str) -> "HubFolder":
        return HubFolder(self.repo, self.commit, self.files, f"{self.within}{name}/")

    def _local(self, name: str) -> LocalFolder:
        from huggingface_hub import hf_hub_download

        try:
            path = hf_hub_download(self.repo, f"{self.within}{name}", revision=self.commit)
        except Exception as error:  # httpx, hub and file system errors alike
            raise bad(f"{self.root}/{name}", f"cannot be fetched ({_first_line(error)})") from error
        return LocalFolder(str(Path(path).parent))

    def size(self, name: str) -> int:
        return self._local(name).size(name)

    def spans(self, name: str, spans: Sequence[tuple[int, int]]) -> np.ndarray:
        return self._local(name).spans(name, spans)

    def identity(self, name: str) -> str | None:
        return None


def _hub(repo: str, revision: str | None) -> Folder:
    """The repository as the hub lists it, or, offline, as the hub's cache holds it."""
    from huggingface_hub import HfApi, constants, snapshot_download

    try:
        if constants.HF_HUB_OFFLINE:
            return LocalFolder(snapshot_download(repo, revision=revision, local_files_only=True))
        info = HfApi().model_info(repo, revision=revision)
    except Exception as error:  # httpx, hub and file system errors alike
        why = "HF_HUB_OFFLINE is set, and its cache lacks it" if constants.HF_HUB_OFFLINE else _first_line(error)
        asked = f"{repo}@{revision}" if revision else repo
        raise bad(asked, f"is no local path, and the hub does not give it ({why})") from error
    return HubFolder(repo, str(info.sha), tuple(file.rfilename for file in info.siblings or ()))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
