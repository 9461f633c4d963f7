"""Arrivals: which files are new, which quarters they change, and what is to be made of it.

Nothing here computes a dataset or a forecast; it says what somebody should. Each look starts from what
is there (files, stored datasets, forecasts on record), so that one that was missed or cut off costs
nothing: the next finds the same work to do.

Where do I go to …?
- decide whether a file is written to its end: ``watching``
- judge a file, and put what came of it on record: ``uploads``
- learn what each quarter would hold: ``contents``
- say which quarters need which work: ``plan``
- do all of these in order: ``look``
"""
