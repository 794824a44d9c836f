"""GGUF files: reads headers safely, and rewrites files with other keys or other tensor bytes.

The entry points, from the bottom up: `values` and `tensors` (types), `header` (`read_header`), `shards`
(`find_shards`), `model_checks`, `hashes` and `diff`; `rewrite` (a new file) and `inplace` (the same file:
`edit_in_place`, `recover`); `output` (where a result may go) and `placing` (writes and names all files of a model
together). `spans`, `draft` and `bounded_reader` serve these.
"""
