"""Data: from source files to quarters that can be trusted, and from quarters to a panel.

Where do I go to …?
- open a file format: ``tabular``; judge one column: ``columns``; read a source: ``readers``;
  the rows of a query: ``sql_rows``
- judge all files together: ``validation``
- write or read canonical Parquet: ``store``; what is on record of the sources: ``sources``
- bring a quarter up to date, or load a range of them: ``quarter``
- work with the series: ``panel``; calendar columns: ``calendar``
- profile the columns: ``profile``
"""
