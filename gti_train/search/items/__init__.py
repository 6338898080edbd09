"""Items as a few vectors in the input space of a ranker: made offline, read in place of the text.

Source: MixLM (arXiv 2512.07846): an encoder and a ranker trained together on soft labels, distillation and alignment.
"""
