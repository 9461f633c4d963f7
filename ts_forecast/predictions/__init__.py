"""Forecasts: all cutoffs of a quarter in one pass a model, published as one slice.

Where do I go to …?
- forecast from many cutoffs: ``rolling``
- make a quarter's slice, with its run: ``quarter``; read its latest forecasts back: ``latest``
- publish or read a slice: ``slice``; what its rows must be: ``slice_rows``
"""
