"""llama.cpp and the native hook: models, tokens, and what a model says after each prompt.

Modules, lowest first: `library` and `hook` (the two native libraries), `dequantize`, `settings`, `microbatch`, what
plans a capture (`rows`, `steps`, `ending`, `trie`, `packing`: pure), `model`, `vocabulary`, `context`, `running`,
`capture`. Importing this package loads none of them.
"""
