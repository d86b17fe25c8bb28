"""The reference autoencoders of eccentric regularization: one description, three frameworks, one training loop.

    eccentric_models.training       train, restore
    eccentric_models.checkpoint     Checkpoint
    eccentric_models.settings       Settings
    eccentric_models.architecture   the networks as data
    eccentric_models.objectives     what is minimised
    eccentric_models.frameworks     PyTorch, JAX, TensorFlow
    eccentric_models.data           the data sets
    eccentric_models.evaluation     what came out, as numbers
    eccentric_models.pictures       and as pictures
    eccentric_models.runs           runs that are kept by their configuration and shared
    eccentric_models.downstream     classifiers on latents
    eccentric_models.frechet        scores of the images that a run draws
    eccentric_models.components     images along principal components
    eccentric_models.command        the command `eccentric`

Nothing is imported before it is asked for, and no framework but the one that a run names.
"""
