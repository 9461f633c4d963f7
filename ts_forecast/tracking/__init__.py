"""What was computed, from what, and with which result: experiments, runs and their fingerprints.

Where do I go to …?
- say what makes two computations the same: ``fingerprint``
- know the machine, the libraries and the commit that computed something: ``environment``
- find or make a pipeline's row: ``experiments``
- compute something once, and record how it went: ``runs``
- write parameters and metrics of a run: ``measurements``
- write runs that have ended already, many at once: ``records``
- mirror runs to an outside system: ``tracker``
"""
