"""gti_train: start new tokens of a language model at the mean, at random, or grounded in their descriptions."""
