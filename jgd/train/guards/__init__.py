"""Steps that are not to be taken: NaN, spikes, overflow."""
