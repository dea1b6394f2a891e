"""Sweeps: whole studies as batched programs."""

from l1jax.sweeping.sweeps import sweep as sweep
