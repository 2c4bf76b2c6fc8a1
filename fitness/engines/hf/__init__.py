"""The engine for causal language models that transformers loads."""
