"""Building blocks of the models: norms, attention, Gemma blocks, the SigLIP vision tower."""
