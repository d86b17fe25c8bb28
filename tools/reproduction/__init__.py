"""The parts of `reproduce.py`.

paper      the numbers of the paper
presets    what is trained for them, within a budget
lab        finished runs and their data
figures    the experiments that are figures, and section 3.3
tables     the experiments that are tables
diversity  the experiment on hyperspherical energies in a classifier
trainings  the training runs of that classifier, kept
classifier its network, and how it is trained
drawing    the pictures
sections   what an experiment gives, on the screen and as Markdown
page       the page with all of them
"""
