"""The meaning of edgecal's own keys in a file: the calibration record, the sampling temperature, a baked file's keys.

`record` reads them (`edgecal.show`), `changes` works out what stamping and stripping change, `fit_record` makes a
record of a fit's result, `edit` writes (`edgecal.stamp`, `edgecal.strip`). The package is not called `stamp`, because
importing it would then shadow the function `edgecal.stamp`.
"""
