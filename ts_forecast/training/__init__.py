"""Fitting models: building them, fitting them the same way every time, recording what came of it.

Where do I go to …?
- the model object of a pipeline's entry: ``neural``, ``statistical``
- fit, save and load one: ``trainer``
- train a quarter once, with its rows: ``quarter``
- know which models are calibrated: ``calibration``; how wide intervals are: ``conformal``
- put some together: ``ensemble``
- know what is searched for a model: ``search``; stored search spaces: ``search_spaces``
- what is mended in neuralforecast: ``library_patches``
"""
