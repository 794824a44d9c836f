"""Baking real models: right bakes pass at every temperature and come back to the same bytes, wrong ones do not.

`pytest tests/real/test_real_bake.py -s` prints the figures."""

import pytest
from support.real_runs import edgecal, edgecal_json

from edgecal.baking.logit_check import ALLOWED

TEMPERATURES = (0.8, 1.5, 2.5, 3.8, 6.95)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_baked_and_back(real_name, real_model, temperature, tmp_path):
    assert edgecal_json("doctor", real_model)["bakeable"]
    baked, again = tmp_path / "baked.gguf", tmp_path / "again.gguf"
    said = edgecal_json("bake", real_model, "--output", baked, "--temperature", temperature)
    print(
        f"\n{real_name} / {temperature}: {said['plain']:.1e} rms of the spread, {said['error']:.1e} beyond rounding"
    )
    assert said["error"] < 1e-5 < said["allowed"] == ALLOWED and said["plain"] < 5e-3
    edgecal("unbake", baked, "--output", again)
    assert again.read_bytes() == real_model.read_bytes()


@pytest.mark.parametrize("factor", [1.005, 0.995])
def test_a_norm_that_is_off_by_half_a_percent_is_refused(
    real_name, real_model, factor, tmp_path, monkeypatch
):
    from edgecal.baking import bake as baking
    from edgecal.baking import recipe
    from edgecal.errors import ModelError

    monkeypatch.setattr(baking, "divided", lambda data, tau, where: recipe.divided(data, tau * factor, where))
    with pytest.raises(ModelError, match=r"at most 0\.0001 rms .* got 0\.00[45]\d* rms; nothing was written"):
        baking.bake(real_model, tmp_path / "baked.gguf", temperature=1.5)
    assert not list(tmp_path.iterdir())
