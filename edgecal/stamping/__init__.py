"""What edgecal's own keys in a file mean: the calibration record, the sampling temperature, what a baked file says.

`record` reads them (`edgecal.show`), `changes` works out what stamping and stripping change, `fit_record` makes a
record of a fit's result, `edit` writes (`edgecal.stamp`, `edgecal.strip`). The package is not called `stamp`, so that
no import of a module can take the place of the function.
"""
