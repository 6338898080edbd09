"""Are these codes good, before a model is trained for a day? Numbers, a verdict a level, and what to do.

D1 … D6 are the names of SIDInspector (arXiv 2606.10375): use, aliasing, agreement with co-occurrence, head and tail, structure,
churn. Codes of any origin are judged; nothing here makes codes, and nothing draws.
"""
