"""Judges methods on labelled data: splits, the comparison's rows and ablations, the numbers behind pictures, the
verdict.

It takes arrays and returns JSON-ready values, so that every figure can be recomputed from saved logits without a model.
"""
