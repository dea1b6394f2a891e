"""Sweeps: whole studies as batched programs."""

from l1jax.sweeping.study import sweep as sweep
