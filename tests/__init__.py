"""The tests. A package, since mlforecast installs one of the same name, which would hide ours."""
