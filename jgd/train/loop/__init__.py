"""`fit`: epochs, evaluation, early stopping, logs, resumption."""
