"""From paired CT and PET to a model package: phantoms, sampling, losses and the visible fit loop."""
