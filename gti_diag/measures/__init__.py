"""The mathematics: tensors in, numbers out.

One idea a module, each quantity with its source and its convention. Nothing here reads a file, knows a checkpoint or draws.
"""
