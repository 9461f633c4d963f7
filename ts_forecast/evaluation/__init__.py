"""How good the forecasts were: scores, their distribution over series, and tables of them.

Where do I go to …?
- know what a score is (pure, no database): ``scoring``
- condense scores over series, with skill against the baseline (pure): ``summary``
- score a quarter's slice and store the result: ``quarter``
- measure forecasts of a past window by one number: ``backtest``; calibrate a model: ``calibration``
- compare models, find the worst series: ``leaderboard``
"""
