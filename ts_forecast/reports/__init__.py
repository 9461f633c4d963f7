"""A quarter on one page: accuracies, forecasts, coverage, drift, checks and lineage.

Where do I go to …?
- change what a report says: ``content``; how it looks: ``report.html.j2``
- change a drawing: ``drawing``
- see how it is stored and recorded: ``page``
"""
