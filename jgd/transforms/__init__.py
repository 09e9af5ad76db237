"""Transforms of whole trees, and the means to put them in a row."""

from jgd.transforms._chain import chain as chain
from jgd.transforms._clipping import clip_by_global_norm as clip_by_global_norm
from jgd.transforms._decay import add_decayed_weights as add_decayed_weights
from jgd.transforms._scaling import scale_by_learning_rate as scale_by_learning_rate
