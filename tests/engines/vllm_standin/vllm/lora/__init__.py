"""Adapters, as in vLLM."""
