"""Calibrated copies of the bundled chat model: stamped, stamped without sampling key, and baked."""

from __future__ import annotations

from pathlib import Path

from edgecal.baking.bake import bake as bake_model
from edgecal.gguf.header import read_header
from edgecal.gguf.rewrite import write_edited
from edgecal.stamping.changes import calibration_edits
from edgecal.stamping.record import CalibrationRecord

MODELS = Path(__file__).parents[2] / "models"
CHAT = MODELS / "edgecal-tiny-chat-Q8_0.gguf"
BASE = MODELS / "edgecal-tiny-base-Q8_0.gguf"
TEMPERATURE = 3.843


def stamp(target, *, source=CHAT, temperature=TEMPERATURE, sampling_key=True, **record):
    """A copy of `source` with a calibration in it."""
    header = read_header(source)
    changes, remove = calibration_edits(header, CalibrationRecord(temperature, **record), sampling_key)
    write_edited(header, target, changes=changes, remove=remove)
    return target


def bake(target, *, source=CHAT, temperature=TEMPERATURE):
    """A copy of `source` whose weights give divided logits; temperature None: the one in its metadata."""
    bake_model(source, target, temperature=temperature, check=False)
    return target
