"""From text vectors to codes: encoders, quantisers, uniqueness, and their folder on disk.

Nothing here knows a language model.
"""
