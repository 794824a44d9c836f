"""ggml's dequantizers by their exported names, against its own table of types, on bits of every kind."""

import numpy as np
import pytest
from support.ggml_types import TYPE_IDS, WEIGHT_TYPES, dequantize, traits_of

from edgecal.errors import ModelError
from edgecal.llama.library import dequantize_rows

QUANTIZED = [name for name in WEIGHT_TYPES if traits_of(TYPE_IDS[name]).is_quantized]


@pytest.mark.parametrize("name", QUANTIZED)
def test_random_bytes_bit_for_bit(name):
    """Also scales that are infinite or no number."""
    traits = traits_of(TYPE_IDS[name])
    n_per_row = 2 * traits.block_elements
    raw = np.random.default_rng(0).integers(0, 256, (300, 2 * traits.block_bytes), np.uint8)
    rows = dequantize_rows(name, raw, n_per_row)
    assert rows.dtype == np.float32 and rows.shape == (300, n_per_row)
    expected = dequantize(name, raw, n_per_row)
    np.testing.assert_array_equal(rows.view(np.uint32), expected.view(np.uint32))
    # Every other row, which is not contiguous.
    np.testing.assert_array_equal(
        dequantize_rows(name, raw[::2], n_per_row).view(np.uint32), expected[::2].view(np.uint32)
    )


def test_no_rows():
    assert dequantize_rows("Q4_K", np.zeros((0, 144), np.uint8), 256).shape == (0, 256)


@pytest.mark.parametrize("name", ["F32", "I8", "Q8_1", "Q4_2", "type 99", ""])
def test_what_ggml_cannot_write_out_is_refused_by_name(name):
    with pytest.raises(
        ModelError, match=rf"^{name}: llama-cpp-python .* exports no dequantize_row_"
    ) as caught:
        dequantize_rows(name, np.zeros((1, 4), np.uint8), 1)
    assert "\n" not in str(caught.value)
