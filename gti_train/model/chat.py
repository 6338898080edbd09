"""A prompt as a turn of the model's own chat template. A template is a program of the checkpoint's: it runs within bounds."""

import functools
import json
import subprocess
import sys
import weakref
from typing import TYPE_CHECKING

from gti_diag.errors import InputError
from gti_diag.foreign import shown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SECONDS, MEMORY = 5, 10**9  # of processor time for one prompt; bytes
# The folder that it is started in is no place to import from.
START = "import sys; sys.path[:] = sys.argv[1:]; from gti_train.model.chat_worker import serve; serve()"


def chat_text(prompt: str, tokenizer: "PreTrainedTokenizerBase") -> str:
    """`prompt` as one user turn, up to where the answer begins, without the block that asks for thinking.

    Raises:
        InputError: the template fails, or takes more than 5 s of processor time or 1 GB for this prompt.
    """
    specials = json.dumps(tokenizer.special_tokens_map, default=str, sort_keys=True)
    answer = _renderer(tokenizer.get_chat_template(), specials).ask(prompt)
    if "text" not in answer:
        raise InputError(
            f"the chat template of {shown(tokenizer.name_or_path)} cannot be used: {shown(answer['error'])}; "
            "mend it, or remove it from the folder to ask in plain text"
        )
    return answer["text"]


@functools.lru_cache(maxsize=4)
def _renderer(template: str, specials: str) -> "_Renderer":
    return _Renderer(template, specials)


class _Renderer:
    """A process that renders one template, for as long as it is used."""

    def __init__(self, template: str, specials: str):
        self.process = subprocess.Popen(
            [sys.executable, "-c", START, *sys.path],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, encoding="ascii",
        )  # fmt: skip
        weakref.finalize(self, _end, self.process)
        bounds = {"seconds": SECONDS, "memory": MEMORY}
        self._say({"template": template, "special_tokens": json.loads(specials), **bounds})

    def ask(self, prompt: str) -> dict[str, str]:
        """The worker's answer; an error where it was killed."""
        self._say(prompt)
        line = self.process.stdout.readline()  # type: ignore[union-attr]
        killed = f"it takes more than {SECONDS} s of processor time, or {MEMORY / 1e9:.1f} GB, for one prompt"
        return json.loads(line) if line else {"error": killed}

    def _say(self, value: object) -> None:
        try:
            self.process.stdin.write(json.dumps(value) + "\n")  # type: ignore[union-attr]
            self.process.stdin.flush()  # type: ignore[union-attr]
        except BrokenPipeError:  # killed at an earlier prompt: the answer will say so
            pass


def _end(process: subprocess.Popen) -> None:
    process.kill()
    process.communicate()
