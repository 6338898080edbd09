"""Language models in memory: load and save, extend a vocabulary, start and train its new rows, run shared beginnings once.

Nothing here knows items or a task.
"""
