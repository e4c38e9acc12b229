"""Triton kernels for acting on a GPU; imported there only, since a machine without one may lack Triton.

Each kernel has a plain twin in PyTorch, `plain_…`, in the same file: that is its specification, and tests hold the two
together, on machines without a GPU under Triton's interpreter.
"""
