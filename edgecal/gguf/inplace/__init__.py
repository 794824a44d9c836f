"""Edits files in place, safe against kills and power cuts.

The rest of edgecal uses two functions: `engine.edit_in_place`, and `journal.recover`, which must run before a file is
read, so that an interrupted edit is finished or undone. Behind them are `layout` (where the new bytes go), `patch` (a
change as bytes and offsets), `journal` (written before the first change) and `kernel` (what Linux offers).
"""
