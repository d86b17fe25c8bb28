"""The reference autoencoders of eccentric regularization: one description, three frameworks, one training loop.

    eccentric_models.training       train, restore
    eccentric_models.checkpoint     Checkpoint
    eccentric_models.settings       Settings
    eccentric_models.architecture   the networks as data
    eccentric_models.objectives     the losses
    eccentric_models.frameworks     the networks in PyTorch, JAX and TensorFlow
    eccentric_models.data           the data sets
    eccentric_models.evaluation     the results as numbers
    eccentric_models.pictures       the results as pictures
    eccentric_models.log            the log of a run
    eccentric_models.runs           runs that are stored by their configuration and shared
    eccentric_models.downstream     classifiers on latents
    eccentric_models.frechet        scores of the images sampled from a run
    eccentric_models.components     images along principal components
    eccentric_models.command        the command `eccentric`

A module is imported when it is used, and of the frameworks only the one that a run names.
"""
