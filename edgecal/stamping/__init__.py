"""What edgecal's own keys in a file mean: the calibration record, the sampling temperature, and what a baked file says.

`record` reads them, `edits` works out what stamping and stripping change, `fit_record` makes a record from a fit's
result.
"""
