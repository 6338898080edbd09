"""A ranker made smaller and still a plain transformers model: whole layers, then neurons of the layers that stay."""
