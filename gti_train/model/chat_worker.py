"""Render chat templates in a process of its own, within bounds on time and memory: see `chat`. Loads no torch."""

import json
import resource
import signal
import sys
from typing import Any

LONGEST = 1 << 20  # characters beyond the prompt's own


def serve() -> None:
    """Answer each line of standard input, a prompt as JSON, with `{"text"}` or `{"error"}`; the first says what to render with,
    and how many `seconds` of processor time a prompt may take and bytes of `memory` all of it, beyond what the libraries take."""
    from transformers.utils.chat_template_utils import render_jinja_template

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ^C is the caller's to handle
    settings = json.loads(sys.stdin.readline())
    if sys.platform == "linux":  # others do not count what is mapped
        _bound(resource.RLIMIT_AS, _address_space() + settings["memory"])
    options = {"chat_template": settings["template"], "add_generation_prompt": True, "enable_thinking": False}
    for line in sys.stdin:
        spent = resource.getrusage(resource.RUSAGE_SELF)
        _bound(resource.RLIMIT_CPU, int(spent.ru_utime + spent.ru_stime) + 1 + settings["seconds"])  # then it is killed
        prompt = json.loads(line)
        turns = [[{"role": "user", "content": prompt}]]
        answer: dict[str, Any]
        try:
            text = render_jinja_template(turns, **options, **settings["special_tokens"])[0][0]
            long = len(text) > len(prompt) + LONGEST
            answer = {"error": f"it makes {len(text):,} characters of one prompt"} if long else {"text": text}
        except MemoryError:
            answer = {"error": f"it takes more than {settings['memory'] / 1e9:.1f} GB for one prompt"}
        except Exception as error:  # whatever the template does, or refuses to do
            answer = {"error": f"{type(error).__name__}: {error}"[:300]}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _bound(what: int, most: int) -> None:
    hard = resource.getrlimit(what)[1]
    resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _address_space() -> int:
    """Bytes that this process has mapped."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * resource.getpagesize()
