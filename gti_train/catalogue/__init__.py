"""Items and who chose them when: one form in memory, JSON lines on disk, and a world of invented products.

Nothing here knows codes, tokens or models.
"""
