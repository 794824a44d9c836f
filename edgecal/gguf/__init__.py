"""GGUF files: reading headers safely, and writing them again with other keys or other bytes of some tensors.

The doors, from the bottom up: `values` and `tensors` (types), `header` (`read_header`), `shards` (`find_shards`),
`model_checks`, `hashes` and `diff`; `rewrite` (a new file) and `inplace` (the same file: `edit_in_place`, `recover`);
`output` (where a result may go) and `placing` (all files of a model written and named together). `spans`, `draft` and
`protected` serve these.
"""
