"""The one gate for what others wrote: how much of it may be read, what form it must have, and how it is shown.

`limits` bounds what is read, inflated and received; `json_text` reads JSON; `schemas` says what each file must hold (import it inside
functions: pydantic takes a tenth of a second); `inert_pickle` reads pickles into records that do nothing; `shown` turns foreign
text into text that a terminal, a page, a log and a CI system show as it is. Nothing here knows checkpoints, and nothing runs code.
"""

from .shown import presentable, shown, without_secrets

__all__ = ["presentable", "shown", "without_secrets"]
