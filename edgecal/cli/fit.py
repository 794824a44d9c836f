"""`edgecal fit`: options in, `edgecal.fit` called, a table or JSON out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click

from edgecal.errors import NotIdentifiedError

__all__ = ["fit_command"]


@click.command("fit", short_help="Fit a chat model's temperature against its base model.")
@click.argument("base", type=click.Path())
@click.argument("chat", type=click.Path())
@click.option(
    "--data",
    multiple=True,
    metavar="FILE",
    type=click.Path(),
    help="Prompts as JSON Lines, one of the forms {question, choices}, {prompt, labels} or {tokens, choice_tokens} "
    "on each line; repeatable, - is standard input.  [default: a built-in bank of questions]",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Draw N of the prompts, by --seed.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Seed of the draw and the bootstrap.",
)
@click.option(
    "--template",
    type=click.Path(),
    metavar="FILE",
    help="Jinja template for questions instead of the built-in one.",
)
@click.option(
    "--method",
    type=click.Choice(["dual-align", "daca", "naive", "process", "ts", "vanilla"]),
    default="dual-align",
    show_default=True,
    help="What is minimised; ts learns from answers, the others never see one.",
)
@click.option(
    "--ise", type=click.Choice(["mixture", "mean"]), help="What is averaged in the stability entropy."
)
@click.option(
    "--tau-scope", type=click.Choice(["all", "final"]), help="Which layers the temperature divides."
)
@click.option(
    "--combine",
    type=click.Choice(["stratified", "divergence", "sum"]),
    help="How Dual-Align joins its two losses.",
)
@click.option(
    "--lambda", "lam", type=float, metavar="X", help="Weight of the process loss with --combine sum."
)
@click.option(
    "--output",
    "-o",
    type=click.Path(),
    metavar="FILE",
    help="Output file.  [default: <chat>.calibrated.gguf]",
)
@click.option("--in-place", is_flag=True, help="Write the temperature into the chat model's own file.")
@click.option("--dry-run", is_flag=True, help="Do everything but write.")
@click.option("--force", is_flag=True, help="Overwrite an existing output.")
@click.option("--no-sampling-key", is_flag=True, help="Write only edgecal.* keys, not general.sampling.temp.")
@click.option(
    "--bootstrap",
    type=click.IntRange(min=20),
    default=1000,
    show_default=True,
    metavar="N",
    help="Resamples for the interval.",
)
@click.option(
    "--threads", "-t", type=click.IntRange(min=1), metavar="N", help="CPU threads.  [default: physical cores]"
)
@click.option(
    "--ubatch-size",
    "-ub",
    type=click.IntRange(min=1),
    metavar="N",
    help="Tokens that llama.cpp computes at once.  [default: 512]",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=600.0,
    show_default=True,
    metavar="S",
    help="Seconds without a sign of life after which llama.cpp counts as hung.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@click.option("--quiet", "-q", is_flag=True, help="No progress and no warnings on stderr.")
def fit_command(
    base: str,
    chat: str,
    data: tuple[str, ...],
    limit: int | None,
    seed: int,
    template: str | None,
    method: str,
    ise: str | None,
    tau_scope: str | None,
    combine: str | None,
    lam: float | None,
    output: str | None,
    in_place: bool,
    dry_run: bool,
    force: bool,
    no_sampling_key: bool,
    bootstrap: int,
    threads: int | None,
    ubatch_size: int | None,
    timeout: float,
    as_json: bool,
    quiet: bool,
) -> None:
    """Fit ONE temperature for CHAT from unlabelled prompts, so that its confidence is as honest as BASE's.

    BASE is the pre-trained model that CHAT was post-trained from; both are GGUF files (of a split model, the
    first shard). CHAT is never changed unless --in-place is given: the result is a new file that holds the
    temperature.
    """
    import edgecal
    from edgecal.cli.progress import show_progress
    from edgecal.cli.streams import printing
    from edgecal.cli.tables import print_fit
    from edgecal.gguf import default_output, find_shards
    from edgecal.llama.settings import CaptureSettings
    from edgecal.prompts import PromptTemplate

    if in_place and output is not None:
        raise click.UsageError("--in-place and --output exclude each other")
    if dry_run and in_place:
        raise click.UsageError("--dry-run writes nothing, so --in-place does not go with it")
    target: Path | None = None
    if not dry_run and not in_place:
        target = Path(output) if output is not None else default_output(find_shards(Path(chat)))
    settings = CaptureSettings()
    if threads is not None:
        settings = replace(settings, n_threads=threads)
    if ubatch_size is not None:
        settings = replace(settings, n_ubatch=ubatch_size, n_batch=max(settings.n_batch, ubatch_size))
    try:
        with show_progress(quiet=quiet) as on_progress:
            result = edgecal.fit(
                base,
                chat,
                list(data) if data else None,
                method=method,
                ise=ise,
                tau_scope=tau_scope,
                combine=combine,
                lam=lam,
                template=PromptTemplate.from_file(template) if template is not None else None,
                limit=limit,
                seed=seed,
                n_bootstrap=bootstrap,
                settings=settings,
                timeout_s=timeout,
                output=target,
                in_place=in_place,
                force=force,
                sampling_key=not no_sampling_key,
                on_progress=on_progress,
            )
    except NotIdentifiedError as error:
        _warn(error.warnings, quiet=quiet)  # one of them may be the reason
        raise
    _warn(result.warnings, quiet=quiet)
    with printing("" if result.output is None else f"; {result.output} is complete"):
        if as_json:
            click.echo(json.dumps(result.to_dict(), allow_nan=False))
        else:
            print_fit(result, sampling_key=not no_sampling_key)


def _warn(warnings: Sequence[str], *, quiet: bool) -> None:
    from edgecal.cli.streams import say

    for warning in warnings if not quiet else ():
        say(f"warning: {warning}")
