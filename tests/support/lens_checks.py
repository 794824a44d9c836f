"""The lens's self-check of several prompts at once."""

import numpy as np

from edgecal.lens import LensCheck, mean_square_errors


def check_lens(candidates, llama_logits, spread):
    """The verdict on reproduced logits; parameters as for `mean_square_errors`."""
    errors = mean_square_errors(candidates, llama_logits, spread)
    n_prompts, n_tokens = llama_logits.shape
    return LensCheck(float(np.sqrt(errors.mean())), f"{n_tokens} tokens of {n_prompts} prompts")
