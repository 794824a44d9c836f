"""`edgecal cache`: shows or clears the cache of earlier runs.

It prints without rich, which takes longer to import than the work itself.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from edgecal.results.model_files import CacheCleared, CacheShown

__all__ = ["cache_command"]

_NOWHERE = "folder  none: there is no home folder; set the environment variable EDGECAL_CACHE_DIR to one"
_COLUMNS = ("model", "prompts", "size", "last used")


@click.command("cache", short_help="Show or clear the cache of earlier runs.")
@click.argument("action", type=click.Choice(["show", "clear"]), default="show")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def cache_command(action: str, as_json: bool) -> None:
    """Show or clear the cache of earlier runs.

    The cache keeps models' outputs, so that another method or a longer list of prompts costs only what is new. It holds
    numbers and digests but no text, and may be cleared at any time. The folder is ~/.cache/edgecal, or what
    EDGECAL_CACHE_DIR names.
    """
    from edgecal.cache import clear_cache, default_cache_folder
    from edgecal.cli.stdio import printable, printing

    folder = default_cache_folder()
    values: CacheShown | CacheCleared
    if action == "show":
        values = _shown()
        lines = _lines(values)
    else:
        cleared = clear_cache(folder)
        values = {
            "folder": None if folder is None else str(folder),
            "files": cleared.n_files,
            "freed_bytes": cleared.n_bytes,
        }
        said = f"{cleared.n_bytes:,} bytes in {cleared.n_files} files were freed in {folder}"
        lines = [_NOWHERE if folder is None else said]
    with printing():
        # Not click.echo, which writes UTF-8 even to a stream that wants ASCII.
        print(json.dumps(values) if as_json else "\n".join(printable(line) for line in lines))


def _shown() -> CacheShown:
    from datetime import datetime, timezone

    from edgecal.cache import MAX_CACHE_BYTES, default_cache_folder, list_stores

    folder = default_cache_folder()
    stores = list_stores(folder)
    return {
        "folder": None if folder is None else str(folder),
        "bytes": sum(store.n_bytes for store in stores),
        "max_bytes": MAX_CACHE_BYTES,
        "stores": [
            {
                "model": None if store.context is None else store.context.get("model"),
                "prompts": store.n_prompts,
                "bytes": store.n_bytes,
                "last_used": datetime.fromtimestamp(int(store.last_used_s), timezone.utc).isoformat(),
                "file": store.path.name,
                "context": store.context,
            }
            for store in stores
        ],
    }


def _lines(values: CacheShown) -> list[str]:
    from edgecal.cli.stdio import printable

    if values["folder"] is None:
        return [_NOWHERE]
    lines = [
        f"folder  {values['folder']}",
        f"size    {values['bytes']:,} bytes of at most {values['max_bytes']:,}",
    ]
    if not values["stores"]:
        return [*lines, "stores  none"]
    rows = [_COLUMNS]
    for store in values["stores"]:
        model = "cannot be read" if store["context"] is None else str(store["model"] or "not said")
        prompts = "?" if store["prompts"] is None else f"{store['prompts']:,}"
        used = store["last_used"].replace("T", " ").replace("+00:00", " UTC")
        rows.append((printable(model), prompts, f"{store['bytes']:,}", used))
    width, n_prompts, n_bytes = (max(len(row[column]) for row in rows) for column in range(3))
    lines.append("")
    lines += [f"{row[0]:{width}}  {row[1]:>{n_prompts}}  {row[2]:>{n_bytes}}  {row[3]}" for row in rows]
    return lines
