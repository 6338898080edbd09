"""What a tokenizer's files say beyond its strings: the chat template, and how text becomes ids. Read when asked for."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

from gti_diag.foreign.json_text import parse_json

Encoder = Callable[[str], list[int]]


@dataclass(frozen=True)
class TokenizerFiles:
    """`read` gives the bytes of the nearest file of a name, None where there is none; `template` is one that the weights'
    own file holds (GGUF)."""

    read: Callable[[str], bytes | None] = lambda name: None
    template: str | None = None

    @functools.cached_property
    def chat_template(self) -> str | None:
        """The chat template (several: one after the other); None where no file has one. It is never run."""
        plain = self.read("chat_template.jinja")
        if plain is not None:
            return plain.decode("utf-8", "replace")
        for name in ("chat_template.json", "tokenizer_config.json"):
            data = self.read(name)
            content = parse_json(data, name) if data is not None else None
            found = content.get("chat_template") if isinstance(content, dict) else None
            if isinstance(found, str):
                return found
            if isinstance(found, list):  # [{"name": "default", "template": …}, …]
                parts = [entry.get("template") for entry in found if isinstance(entry, dict)]
                return "\n".join(part for part in parts if isinstance(part, str)) or None
        return self.template

    @functools.cached_property
    def encoder(self) -> Encoder | None:
        """Ids of a text, without special tokens around it, by tokenizer.json; None where there is none that works."""
        data = self.read("tokenizer.json")
        if data is None:
            return None
        try:
            from tokenizers import Tokenizer

            tokenizer = Tokenizer.from_buffer(data)
        except Exception:  # the library raises bare Exception for a file that it does not know
            return None
        return lambda text: tokenizer.encode(text, add_special_tokens=False).ids
