"""The downstream task: what a user met becomes a prompt, and the codes of the next item its answer; fine-tuning, decoding, metrics.

Nothing here trains new rows alone (that is grounding) or reads catalogues from disk.
"""
