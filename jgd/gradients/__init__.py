"""Gradients of minibatches, and how they come together."""

from jgd.gradients._accumulate import accumulate_micro_batches as accumulate_micro_batches
