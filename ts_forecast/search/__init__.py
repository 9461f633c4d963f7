"""Choosing a model's parameters: trials on the last steps before the fit's limit, each a run.

Above ``evaluation``, because a trial is forecast and scored as a quarter is. What is searched is
``ts_forecast.search_space`` and ``training.search``.

Where do I go to …?
- know which combination a trial tries: ``sampling``
- know what a trial is measured on (nothing of the quarter): ``validation``
- go on with a search that was killed: ``study``
- run one trial, record it, end it early: ``trial``
- run trials side by side: ``free_slots``
- search from the first combination to the best: ``trials``
"""
