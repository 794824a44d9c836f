"""Editing a file in its own place, safe against kills and power cuts.

Two doors, for all the rest of edgecal: `engine.edit_in_place`, and `journal.recover`, which whoever reads a file calls
first, so that an interrupted edit is finished or undone. Behind them `layout` (where the new bytes go), `patch` (a
change as bytes and places), `journal` (what is written down before the first change) and `kernel` (what Linux offers).
"""
