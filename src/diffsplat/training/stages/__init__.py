"""Stages of a training: networks with their losses, and the fit of the autoencoder."""
