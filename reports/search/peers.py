"""Our prefill-only scores beside sentence-transformers' CrossEncoder with its logit head: the same model, prompts and answers.

    python reports/search/peers.py --model DIR --data ONET --json FILE

Processor time (user and system, all threads) of each, interleaved, the least of some rounds: wall time means little on a shared
machine. Scores are compared in float32, speed in each type.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from sentence_transformers import CrossEncoder
from sentence_transformers.base.modules import Transformer
from sentence_transformers.cross_encoder.modules import LogitScore

from gti_diag.document import dumps
from gti_diag.files import write_text
from gti_train.model.loading import load_language_model
from gti_train.search.prompts import Prompter, Wording
from gti_train.search.reading import read_collection
from gti_train.search.scoring import score

WORDING = Wording("Does the occupation fit the job title?", document_tokens=192, max_tokens=256)
# a line feed after a tag would be eaten
TEMPLATE = (
    "{{% for m in messages if m.role == 'query' %}}{policy}\nQuery: {{{{ m.content }}}}{{% endfor %}}"
    "{{% for m in messages if m.role == 'document' %}}{{{{ '\\n' }}}}Document: {{{{ m.content }}}}\nMatch:{{% endfor %}}"
)


def peer(model: Path, prompter: Prompter, dtype: torch.dtype) -> CrossEncoder:
    """The same question as a chat template, the same answers as its two tokens."""
    module = Transformer(str(model), transformer_task="text-generation", model_kwargs={"dtype": dtype})
    module.tokenizer.padding_side = "left"
    module.tokenizer.chat_template = TEMPLATE.format(policy=WORDING.policy)
    return CrossEncoder(modules=[module, LogitScore(*prompter.rows)], device="cpu")


def cost(run) -> tuple[float, torch.Tensor]:
    began = time.process_time()
    found = run()
    return time.process_time() - began, torch.as_tensor(found).float()


def measured(model: Path, data: Path, dtype: str, *, count: int, rounds: int) -> dict:
    language_model, tokenizer = load_language_model(model, dtype=dtype)
    prompter = Prompter(tokenizer, WORDING)
    part = read_collection(data, "dev")
    query = part.queries[0].text
    room = prompter.wording.document_tokens
    documents = [tokenizer.decode(prompter.tokens(f" {d.text}")[:room]).strip() for d in part.documents[:count]]
    asked = prompter.prompts([(query, document) for document in documents])
    other = peer(model, prompter, language_model.dtype)

    def naive():
        with torch.inference_mode():
            rows = [language_model(input_ids=torch.tensor([ids])).logits[0, -1].float() for ids in asked.ids]
        return torch.stack([row[prompter.rows[0]] - row[prompter.rows[1]] for row in rows])

    ways = {
        "one by one, all logits": naive,
        "CrossEncoder, batches of 32": lambda: other.predict(
            [(query, d) for d in documents], batch_size=32, activation_fn=torch.nn.Identity()
        ),
        "ours, batched by length": lambda: score(language_model, asked.ids, prompter.rows, shared=[0] * len(asked.ids)),
        "ours, query once": lambda: score(language_model, asked.ids, prompter.rows, shared=asked.shared),
    }
    least: dict[str, float] = {}
    scores: dict[str, torch.Tensor] = {}
    for _ in range(rounds):
        for name, run in ways.items():
            seconds, scores[name] = cost(run)
            least[name] = min(seconds, least.get(name, float("inf")))
    plain = scores["one by one, all logits"]
    return {
        name: {
            "items_per_processor_second": len(documents) / seconds,
            "largest_difference": float((scores[name] - plain).abs().max()),
        }
        for name, seconds in least.items()
    } | {"spread": float(plain.std()), "mean_tokens": sum(map(len, asked.ids)) / len(asked.ids)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--documents", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    told = {"count": given.documents, "rounds": given.rounds}
    found = {dtype: measured(given.model, given.data, dtype, **told) for dtype in ("float32", "bfloat16")}
    write_text(given.json, dumps({"schema": 1, "threads": torch.get_num_threads(), **told, **found}))
    print(json.dumps(found, indent=1))


main()
