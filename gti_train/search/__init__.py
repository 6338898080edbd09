"""Semantic search with a small language model: judge, retrieve, rank, and the steps that make a ranker fast.

A query and a document become one prompt; the score is a softmax over two answers at its last position.
"""
