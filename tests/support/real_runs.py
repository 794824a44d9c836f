"""What tests on real models do again and again: commands, plain llama-cpp-python, edited copies."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from contextlib import contextmanager

import llama_cpp
import numpy as np
from support import calibrated

from edgecal.gguf.header import read_header

# No number depends on it, and threads that wait for each other on a busy machine take long.
ONE_THREAD = {"n_threads": 1, "n_threads_batch": 1}


def edgecal(*arguments, code=0, **options):
    """Runs a command as a user does.

    An exit code other than `code` (None: any) or a traceback fails the test with all that was printed.
    """
    command = [sys.executable, "-m", "edgecal", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", **options)
    told = f"edgecal {' '.join(command[3:])}\nexit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert code in (None, done.returncode) and "Traceback" not in done.stderr, told
    return done


def edgecal_json(*arguments, code=0, **options):
    """What a command prints with --json."""
    return json.loads(edgecal(*arguments, "--json", code=code, **options).stdout)


@contextmanager
def plain_llama(path, **options):
    """llama-cpp-python without edgecal, set as edgecal sets it; a function from prompt and labels to their logits."""
    llama = llama_cpp.Llama(str(path), n_ctx=1024, flash_attn=False, verbose=False, **ONE_THREAD, **options)

    def logits(prompt, labels):
        llama.reset()
        llama.eval(llama.tokenize(prompt.encode(), special=True))
        ids = [llama.tokenize(label.encode(), add_bos=False)[-1] for label in labels]
        return np.ctypeslib.as_array(llama._ctx.get_logits_ith(-1), (llama.n_vocab(),))[ids].copy()

    try:
        yield logits
    finally:
        llama.close()


def stamp(source, target, temperature):
    return calibrated.stamp(target, source=source, temperature=temperature)


def sharpen(source, target, factor=2.0):
    """A copy of a model whose final norm multiplies all its logits. A power of two changes no digit of them."""
    info = read_header(shutil.copyfile(source, target)).tensors["output_norm.weight"]
    norm = np.memmap(target, np.float32, "r+", info.data_offset, info.ne)
    norm *= factor
    norm.flush()
    return target
