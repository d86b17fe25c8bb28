"""The parts of `reproduce.py`.

paper      the numbers of the paper
presets    the training runs of each budget
lab        finished runs and their data
figures    the experiments that are figures, and section 3.3
tables     the experiments that are tables
diversity  the experiment on hyperspherical energies in a classifier
trainings  the stored training runs of that classifier
classifier its network and its training
drawing    the pictures
sections   the results of an experiment, on the screen and as Markdown
page       the page with all of them
"""
