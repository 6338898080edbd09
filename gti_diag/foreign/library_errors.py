"""What a library says of a foreign file, in one line and without its advice to trust the file."""

# Names of what is never done here, and what to say in their place.
ADVICE = {
    "trust_remote_code": "it needs Python code of its own, which is never run; name a model that transformers knows by itself",
    "weights_only": "its pickle would run code to load; convert it to safetensors where you trust it",
}


def reason(error: BaseException) -> str:
    """The first line of a message, or all of it where that line only announces what follows."""
    text = str(error).strip()
    for advised, instead in ADVICE.items():
        if advised in text:
            return instead
    lines = [line.strip() for line in text.splitlines()] or [type(error).__name__]
    return " ".join(lines if lines[0].endswith(":") else lines[:1])[:500]
