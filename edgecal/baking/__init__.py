"""Baking: the temperature divided into a model's own weights or keys, so that every runtime's logits have it.

From the bottom up: `recipe` (what to divide, by architecture), `originals` (kept in the file), `logit_check`
(llama.cpp's logits before and after, in a worker process), `bake` (`edgecal.bake`, `edgecal.unbake`).
"""
