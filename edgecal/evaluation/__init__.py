"""Methods judged on labelled data: splits, the comparison's rows and ablations, what pictures show, the verdict.

Arrays in, JSON-ready values out, so that every figure can be computed again from kept logits without a model.
"""
