"""`edgecal doctor`: what edgecal can and cannot do with a model file, and why.

Prints without rich, which takes longer to load than a header of any size takes to read.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from edgecal.cli.options import ANY_PATH, llama_options

if TYPE_CHECKING:
    from edgecal.results import DoctorResult

__all__ = ["describe_error", "doctor_command"]


@click.command("doctor", short_help="Show what edgecal can and cannot do with a model file, and why.")
@click.argument("model", type=ANY_PATH)
@click.option(
    "--run",
    is_flag=True,
    help="Send a few random token ids through the model, in a process of its own, and check that its last block, "
    "re-projected, gives llama.cpp's logits.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0, max=2**64 - 1),
    default=0,
    show_default=True,
    help="Seed of the token ids that --run draws.",
)
@llama_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--quiet", "-q", is_flag=True, help="No progress on stderr.")
def doctor_command(model: str, run: bool, seed: int, as_json: bool, quiet: bool, **values: Any) -> int:
    """Show what edgecal can do with MODEL: which methods work, which layers it can read, whether it can bake it.

    Reads only the header, which takes a second whatever the model's size; --run also runs the model, even without a
    tokenizer. The exit code is what `edgecal fit` with its default method would return for this file: 0; 2 if edgecal
    cannot use the model or read its layers; 3 if llama.cpp cannot run it, or its re-projected last block does not
    reproduce its logits. Methods that still work are listed.
    """
    from edgecal import api
    from edgecal.cli.options import gather_run
    from edgecal.cli.stdio import printable, printing

    def examine(on_progress: Any = None) -> DoctorResult:
        return api.doctor(
            model,
            run=gather_run(values) if run else False,
            seed=seed,
            on_progress=on_progress,
        )

    if run and not quiet:
        from edgecal.cli.progress import show_progress

        with show_progress(quiet=quiet) as on_progress:
            result = examine(on_progress)
    else:
        result = examine()
    with printing():
        # Not click.echo, which writes UTF-8 even to a stream that wants ASCII.
        print(
            json.dumps(result.to_dict()) if as_json else "\n".join(printable(line) for line in _lines(result))
        )
    return result.exit_code


def _lines(shown: DoctorResult) -> list[str]:
    where = f"{shown.path}: "
    rows = [
        ("model", f"{shown.path} ({shown.n_bytes / 1e6:,.0f} MB)"),
        (
            "architecture",
            f"{shown.architecture}" + ("" if shown.known else ", which edgecal does not know"),
        ),
        ("blocks", "not said" if shown.n_layer is None else str(shown.n_layer)),
        ("ending", _ending(shown)),
        ("tokenizer", f"{shown.tokenizer}" + (", with a chat template" * shown.has_chat_template)),
        ("lens check", _check(shown)),
        ("methods", ", ".join(shown.methods) or "none"),
    ]
    if shown.reason is not None:
        rows.append(("why not all" if shown.methods else "why", shown.reason.removeprefix(where)))
    bake = "can be baked" if shown.bakeable else (shown.bake_reason or "").removeprefix(where)
    if shown.methods:
        rows.append(("baking", bake))
    rows += [("note", note.removeprefix(where)) for note in shown.notes]
    first = max(len(name) for name, _ in rows) + 2
    return [f"{name:{first}}{text}" for name, text in rows]


def _ending(shown: DoctorResult) -> str:
    """How the last block's output becomes logits, step by step."""
    ending, head = shown.ending, shown.head
    if ending is None or head is None:
        return "not known"
    streams = f"{ending['n_streams']} streams merged" if ending["n_streams"] > 1 else ""
    norm = {"rms": "RMSNorm", "layer": "LayerNorm", None: ""}[ending["norm"]]
    tied = "tied " if head["tensor"] == "token_embd.weight" else ""
    parts = [streams, norm, f"{tied}head of {head['n_vocab']:,} tokens in {head['type']}"]
    if ending["logit_scale"] != 1:
        parts.append(f"times {ending['logit_scale']:.6g}")
    if ending["soft_cap"] is not None:
        parts.append(f"soft cap {ending['soft_cap']:g}")
    return ", ".join(part for part in parts if part)


def _check(shown: DoctorResult) -> str:
    if shown.captured_layers is None:
        return "not run (--run)"
    captured = f"{shown.captured_layers} blocks captured"
    if shown.lens_rms is None:
        return captured
    return f"{captured}, {describe_error(shown.lens_rms)} rms of the spread (0.3% allowed)"


def describe_error(share: float) -> str:
    """A lens's error in percent; an error in float32's last bits is shown as "under 0.001%"."""
    return f"{share:.3%}" if share >= 1e-5 else "under 0.001%"
