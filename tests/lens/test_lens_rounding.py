"""How the head's input is rounded, against ggml's own functions on numbers of all sizes."""

import ctypes

import numpy as np
import pytest
from support.ggml_types import dequantize, llama_lib_folder, quantize_rows

from edgecal.lens.rounding import round_input, sum_errors

N = 512


def some_rows():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, N)) * np.exp(rng.normal(0, 3, (40, 1)))
    x[:8] *= np.exp(rng.normal(0, 2, (8, N)))
    x[8] = 0
    x[9, ::2] = 0
    x[10] = np.arange(N) - 255.5
    x[11] = np.where(np.arange(N) % 2, 3, -3)  # the largest number twice, with both signs
    x[12] *= 1e-9
    return x.astype(np.float32)


@pytest.mark.parametrize("kind", ["Q8_0", "F16", "BF16"])
def test_ggmls_own_rounding(kind):
    x = some_rows()
    elements = 32 if kind == "Q8_0" else 1
    weights = "Q4_0" if kind == "Q8_0" else kind
    np.testing.assert_array_equal(
        round_input(x, weights, elements), dequantize(kind, quantize_rows(x, kind), N)
    )


def by_ggml_cpu(name, x, block_elements, block_bytes):
    library = ctypes.CDLL(str(llama_lib_folder() / "libggml-cpu.so"))
    function = library[name]
    function.restype, function.argtypes = None, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
    out = np.zeros((len(x), N // block_elements, block_bytes), np.uint8)
    for row, target in zip(x, out, strict=True):
        function(np.ascontiguousarray(row).ctypes.data, target.ctypes.data, N)
    return out


def test_blocks_of_256():
    x = some_rows()
    blocks = by_ggml_cpu("quantize_row_q8_K", x, 256, 292)
    scale = blocks[:, :, :4].copy().view("<f4")
    expected = blocks[:, :, 4:260].view(np.int8) * scale
    np.testing.assert_array_equal(round_input(x, "Q6_K", 256), expected.reshape(x.shape))


def test_the_sum_that_goes_with_a_minimum():
    x = some_rows()[:, :N]
    blocks = by_ggml_cpu("quantize_row_q8_1", x, 32, 36)
    halves = blocks[:, :, :4].copy().view("<f2").astype(np.float64)
    codes = blocks[:, :, 4:].view(np.int8).astype(np.float64)
    expected = halves[:, :, 1] - halves[:, :, 0] * codes.sum(axis=2)
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(sum_errors(x), expected, rtol=1e-6, atol=0)


def test_floats_are_as_they_are():
    x = some_rows()
    assert round_input(x, "F32", 1) is x
