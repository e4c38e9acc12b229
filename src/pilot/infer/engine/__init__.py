"""Engines run a model for acting: prefill pictures and text once, generate words, denoise a chunk."""
