"""A package, so that Python finds these tests: mlforecast's wheel installs a package of this name too."""
