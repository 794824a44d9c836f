"""Results as tables for people, on stdout."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgecal.cli.doctor import describe_error
from edgecal.cli.stdio import printable
from edgecal.report.text_tables import TextTable, describe_data, describe_prompting, list_tables
from edgecal.results import FitResult, PlanResult, RequestCompareResult, RequestFitResult
from edgecal.results.fitting import MAX_RATIO, BracketEnds, LabelVerdict
from edgecal.results.judging import CompareResult, EvalResult, Judgement, RunCost, Spread, TemperatureUsed

__all__ = [
    "bracket_text",
    "label_check_text",
    "print_fit",
    "print_plain",
    "print_plan",
    "print_request_comparison",
    "print_request_fit",
    "print_result",
    "terminal_width",
    "two_columns",
]

_UNWRAPPED = 100_000
_BARS = " ▁▂▃▄▅▆▇█"


def print_fit(result: FitResult, *, sampling_key: bool) -> None:
    """Prints a fit: the temperature first, then what it rests on, then what was written."""
    low, high = result.interval
    table = two_columns()
    level = f"{result.bootstrap['level']:.0%}"
    table.add_row(
        "temperature",
        Text.assemble((f"{result.temperature:.4g}", "bold"), f"  ({level} interval {low:.4g} to {high:.4g})"),
    )
    variant = ", ".join(f"{name} {value}" for name, value in result.variant.items() if value is not None)
    table.add_row("method", result.method + (f" ({variant})" if variant else ""))
    if result.adaptive is not None:
        table.add_row("stopped", _why_stopped(result))
    table.add_row(
        "prompts",
        f"{result.n_prompts}: both models choose alike on {result.n_agreement} ({result.agreement_rate:.1%}), "
        f"differently on {result.n_disagreement}",
    )
    if result.data["n_skipped"]:
        table.add_row(
            "rows", f"{result.data['n_skipped']:,} of {result.data['n_read']:,} do not fit and were skipped"
        )
    for decision in result.data["decisions"]:
        table.add_row("read as", printable(decision))
    if (anchor := result.anchor) is not None:
        where = f" from {', '.join(map(printable, anchor['files']))}" if anchor["files"] else ""
        weighted = ", weighted by how each was chosen" if anchor["weighted"] else ""
        low, high = anchor["prior_interval"]
        table.add_row("labels", f"{anchor['n_labels']}{where}{weighted}")
        table.add_row("without them", f"{anchor['prior_temperature']:.4g} ({low:.4g} to {high:.4g})")
        table.add_row(
            "doubt", f"{anchor['doubt']:.1%} that temperature 1 is nearer to the right one (5% allowed)"
        )
    mass = result.choice_mass
    table.add_row("choice mass", f"base {mass['base']:.3f}, chat {mass['chat']:.3f} of all probability")
    table.add_row("bracket", bracket_text(result.bracket))
    table.add_row("settled", _settled(result))
    if result.pdl_histogram is not None:
        table.add_row("paths part", _histogram(result.pdl_histogram))
    if result.loss["before"] is not None:
        table.add_row("loss", f"{result.loss['before']:.4f} at temperature 1, {result.loss['after']:.4f} now")
    if result.accuracy is not None and result.ece is not None:
        accuracy, ece = result.accuracy, result.ece
        table.add_row(
            "accuracy",
            f"base {accuracy['base']:.1%}, chat {accuracy['chat']:.1%} ({result.n_labelled} labelled)",
        )
        table.add_row(
            "ECE", f"base {ece['base']:.1%}, chat {ece['before']:.1%} before and {ece['after']:.1%} after"
        )
    if result.label_check is not None:
        table.add_row("NLL", f"chat {label_check_text(result.label_check)}")
    if result.lens is not None:
        errors = ", ".join(f"{role} {describe_error(rms)}" for role, rms in result.lens.items())
        table.add_row("lens check", f"{errors} rms of the spread (0.3% allowed)")
    table.add_row(
        "memory",
        "peak "
        + " and ".join(
            f"{_megabytes(model['peak_memory_bytes'])} ({role})"
            for role, model in (("base", result.models["base"]), ("chat", result.models["chat"]))
        ),
    )
    table.add_row("output", printable(result.output) if result.output is not None else "nothing written")
    for sibling in result.siblings:
        table.add_row("", f"{printable(sibling['path'])} ({sibling['how']})")
    print_plain(table)
    if result.output is not None:
        print_plain("")
        print_plain(sampling_sentence(result.temperature) if sampling_key else _KEYS_ONLY)


def print_request_fit(result: RequestFitResult) -> None:
    """Prints a fit of requests: a line for each group, then what it rests on and what was written."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("questions", "temperature", "95 % interval", "bracket", "asked", "base mass", "settled"):
        table.add_column(name, no_wrap=True)
    for group in result.groups:
        bracket = group["bracket"]
        table.add_row(
            group["name"],
            _number(group["temperature"]),
            "none" if group["interval"] is None else " to ".join(map(_number, group["interval"])),
            f"{_number(bracket['low'])} to {_number(bracket['high'])}",
            f"{group['n_questions']:,}",
            f"{group['choice_mass']['base']:.3f}",
            ("yes" if group["settled"] else "no") + (", by labels" if group["source"] == "labels" else ""),
        )
    print_plain(table)
    print_plain("")
    facts = two_columns()
    variant = ", ".join(f"{name} {value}" for name, value in result.variant.items() if value is not None)
    facts.add_row("method", result.method + (f" ({variant})" if variant else ""))
    facts.add_row(
        "asked", f"{result.requests['n_questions']:,} questions of {result.requests['n_requests']:,} requests"
    )
    shown = f", the base model after {result.shots} worked examples" if result.shots else ""
    facts.add_row("", f"readout {result.readout}, orders {result.orders}{shown}")
    if result.requests["n_skipped"]:
        facts.add_row("skipped", f"{result.requests['n_skipped']:,}")
    if (bias := result.noul_bias) is not None:
        low, high = bias["gain_interval"]
        change = f"held-out NLL {-bias['gain']:+.4f} ({-high:+.4f} to {-low:+.4f})"
        facts.add_row(
            "yes/no bias",
            f"{bias['bias']:+.3g} at temperature {bias['temperature']:.4g}, from {bias['n_labels']} labels: "
            f"{'used' if bias['used'] else 'not used'}, {change}",
        )
    for group in result.groups:
        if group["label_check"] is not None:
            facts.add_row(f"NLL {group['name']}", label_check_text(group["label_check"]))
    facts.add_row("output", printable(result.output) if result.output is not None else "nothing written")
    for sibling in result.siblings:
        facts.add_row("", f"{printable(sibling['path'])} ({sibling['how']})")
    print_plain(facts)


def print_request_comparison(result: RequestCompareResult) -> None:
    """Prints a comparison on requests: a table for each type."""
    for group in result.groups:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for name in (f"{group['name']}, {group['n_questions']:,} questions", *_COMPARED, "temperature", ""):
            table.add_column(name, no_wrap=True)
        for row in group["rows"]:
            told = row["withheld"] or (
                f"not identified on {len(row['not_identified'])} splits"
                if row["not_identified"]
                else row["title"]
            )
            temperature = None if row["temperature"] is None else row["temperature"]["mean"]
            cells = [_mean(row["figures"][name]) if row["withheld"] is None else "" for name in _COMPARED]
            shown = "" if row["temperature"] is None else _number(temperature)
            table.add_row(
                row["name"], *cells, shown, Text(printable(told if told != row["name"] else ""), "dim")
            )
        print_plain(table)
        print_plain("")
    asked = f"readout {result.readout}, orders {result.orders}"
    print_plain(Text(f"mean ± standard deviation over {result.n_splits} splits; {asked}", "dim"))


_COMPARED = ("accuracy", "ece", "nll", "brier", "aurc")


def _mean(spread: Spread) -> str:
    if spread["mean"] is None or spread["sd"] is None:
        return "none"
    return f"{spread['mean']:.3f} ± {spread['sd']:.3f}"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"


def print_plan(plan: PlanResult) -> None:
    """Prints what a fit would cost, model by model."""
    table = two_columns()
    table.add_row("questions", f"{plan.n_questions}")
    for name, model in (("base model", plan.models["base"]), ("chat model", plan.models["chat"])):
        kept = f", {model['n_kept']} of them kept from earlier runs" if model["n_kept"] else ""
        table.add_row(name, f"{printable(model['path'])}: {model['n_prompts']} prompts{kept}")
        table.add_row(
            "",
            f"{model['n_tokens']:,} tokens to run, {model['n_distinct']:,} of them distinct; "
            f"{model['n_computed']:,} will be computed in {model['n_decodes']:,} decodes",
        )
        table.add_row(
            "",
            f"{model['tokens_per_s']:,.0f} tokens/s with {model['n_threads']} threads: about "
            f"{_duration(model['seconds'])}",
        )
        table.add_row(
            "",
            f"memory: file {_megabytes(model['file_bytes'])} (mapped), repacked weights "
            f"{model['buffer_bytes'] / 1e6:.0f} MB, caches of {model['n_sequences']} sequences "
            f"{model['cache_bytes'] / 1e6:.0f} MB; free are {_megabytes(model['available_bytes'])}",
        )
    table.add_row(
        "in all", f"about {_duration(plan.seconds)} for every question; a fit stops earlier where it can"
    )
    print_plain(table)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def _why_stopped(result: FitResult) -> str:
    found = result.adaptive
    assert found is not None
    n_looks = sum(look["counts"] for look in found["looks"])
    looks = "" if n_looks == 1 else f", {n_looks} looks taken into account"
    what = "interval" if result.anchor is None else "the bracket's wider end"
    if found["reached"] is None:
        return f"after all {found['n_available']} questions; the bracket has no end"
    if found["stopped"] == "hopeless":
        return (
            f"after {result.n_prompts} of {found['n_available']} questions: no more of them would settle the result "
            f"(interval so far ±{found['reached']:.1%})"
        )
    if result.n_prompts == found["n_available"]:
        return f"after all {found['n_available']} questions; {what} ±{found['reached']:.1%}{looks}"
    return (
        f"after {result.n_prompts} of {found['n_available']} questions: {what} ±{found['reached']:.1%}, "
        f"±{found['tolerance']:.1%} was asked for{looks}"
    )


_FOUND = {"better": "better", "worse": "worse", "undecided": "not shown to be better"}


def label_check_text(check: LabelVerdict) -> str:
    """The negative log-likelihood before and after, and what the labels say of the difference."""
    low, high = check["interval"]
    return (
        f"{check['nll_before']:.4f} before and {check['nll_after']:.4f} after: {_FOUND[check['found']]} "
        f"({check['difference']:+.4f}, {low:+.4f} to {high:+.4f})"
    )


def bracket_text(bracket: BracketEnds) -> str:
    """Both ends of the bracket with their intervals, and their ratio."""

    def said(name: str, end: float | None, interval: list[float] | None) -> str:
        if end is None:
            return f"no {name} end"
        return f"{end:.4g}" + (f" ({interval[0]:.4g} to {interval[1]:.4g})" if interval else "")

    low, high = bracket["low"], bracket["high"]
    ratio = ""
    if low is not None and high is not None:
        ratio = f", ratio {max(low, high) / min(low, high):.2f} ({MAX_RATIO:g} allowed)"
    return f"{said('low', low, bracket['low_interval'])} to {said('high', high, bracket['high_interval'])}{ratio}"


def _settled(result: FitResult) -> str:
    if result.method == "ts":
        return "yes, by the labels that it was fitted on"
    said = "yes" if result.settled else "no"
    if result.settled and result.anchor is not None:
        said += ", by prompts and labels together"
    if result.harmful is not None:
        link = "but" if result.settled == result.harmful else "and"
        said += f", {link} labels {'speak against it' if result.harmful else 'confirm it'}"
    marked = "; written all the same, marked so" if result.reasons and result.output is not None else ""
    return said + marked


_KEYS_ONLY = (
    "Only edgecal.* keys were written: programs sample as before, and apps that read edgecal.temperature divide "
    "the logits by it for honest confidence."
)


def sampling_sentence(temperature: float) -> str:
    """One sentence on what the sampling key does to generated text."""
    if temperature > 1.05:
        effect = "which makes free text wilder than at 1"
    elif temperature < 0.95:
        effect = "which makes free text tamer than at 1"
    else:
        effect = "which samples free text almost as the model wrote it"
    return (
        f"llama.cpp's programs now sample with general.sampling.temp = {temperature:.4g}, {effect}; temperatures of "
        "2 to 4 are normal for answer letters and too wild for prose (pass --temp there, or use --no-sampling-key)."
    )


def two_columns() -> Table:
    """A grid of names and their values."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    return table


def terminal_width() -> int | None:
    """Columns of the terminal if stdout is one, else None: lines are then not limited."""
    console = Console()
    return console.width if console.is_terminal else None


def print_plain(what: Table | Text | str) -> None:
    """Prints to a terminal as wide as it is; to a file or pipe unwrapped and without trailing spaces."""
    console = Console(highlight=False, markup=False)
    if console.is_terminal:
        console.print(what)
        return
    console.width = _UNWRAPPED
    with console.capture() as capture:
        console.print(what)
    for line in capture.get().splitlines():
        print(line.rstrip())


def _histogram(counts: list[int]) -> str:
    total = sum(counts)
    if total == 0:
        return "nowhere (no disagreement)"
    peak = max(counts)
    bars = "".join(_BARS[-(-count * (len(_BARS) - 1) // peak)] for count in counts)
    layer = max(range(len(counts)), key=counts.__getitem__) + 1
    return f"|{bars}| layers 1 to {len(counts)}, most often at {layer} ({peak} of {total})"


def _megabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:.0f} MB" if n_bytes else "unknown"


def print_result(result: Judgement) -> None:
    """Prints the verdict, what was judged, and the tables."""
    print_plain(Text(_plain(result.verdict), "bold"))
    print_plain("")
    facts = two_columns()
    facts.add_row("data", _plain(describe_data(result)))
    facts.add_row("prompting", _plain(describe_prompting(result)))
    if isinstance(result, EvalResult):
        facts.add_row("temperature", _temperature(result.temperature, several=result.typed is not None))
    else:
        facts.add_row("bracket", bracket_text(result.bracket))
        facts.add_row("settled", _what_fit_would_do(result))
        runs = result.extra_runs
        for name, cost in (
            ("cape", runs["cape"]),
            ("verbalized", runs["verbalized"]),
            ("effects", runs["effects"]),
        ):
            if cost is not None:
                facts.add_row(f"run for {name}", _run(cost))
    print_plain(facts)
    for table in list_tables(result):
        print_plain("")
        print_plain(_draw(_narrowed(table)))
        if table.note:
            print_plain(Text(_plain(table.note), "dim"))


def _plain(text: str) -> str:
    """Printable text, with non-breaking spaces as plain ones."""
    return printable(text.replace("\u00a0", " "))


def _temperature(temperature: TemperatureUsed, *, several: bool) -> str:
    if temperature["source"] == "baked":
        return "baked into the weights, nothing is left to divide by"
    if several and temperature["value"] is None and temperature["source"] == "file":
        return "from the file, by type and number of options"
    if temperature["value"] is None:
        return "none in this file; --temperature tries one"
    where = "from the file" if temperature["source"] == "file" else "as given"
    return f"{temperature['value']:.4g}, {where}"


def _what_fit_would_do(result: CompareResult) -> str:
    """Whether edgecal fit would refuse the verdict's method, and for how many reasons."""
    if not result.reasons:
        return "yes"
    what = " and ".join(
        word for word, holds in (("unsettled", not result.settled), ("harmful", result.harmful)) if holds
    )
    return f"no, {what}: edgecal fit refuses it (the warnings say why)"


def _run(run: RunCost) -> str:
    text = f"{run['n_prompts']:,} prompts, {run['n_tokens']:,} tokens"
    return text + (f", {run['n_generated']:,} generated" if "n_generated" in run else "")


def _narrowed(table: TextTable) -> TextTable:
    """The table without those of its optional columns for which a terminal has no room."""
    width = terminal_width()
    for column in table.optional:
        if width is None or _width(table) <= width:
            break
        if column in table.columns:
            table = table.without(column)
    return table


def _width(table: TextTable) -> int:
    """Characters across; the last column may wrap, so 20 are enough for it where there is more in it."""
    widths = [max(map(len, (name, *cells))) for name, *cells in zip(table.columns, *table.rows, strict=True)]
    return sum(widths[:-1]) + min(widths[-1], 20) + 2 * len(widths)


def _draw(table: TextTable) -> Table:
    drawn = Table(title=table.title, title_justify="left", box=None, padding=(0, 2, 0, 0), header_style="dim")
    for index, column in enumerate(table.columns):
        last = index == len(table.columns) - 1
        drawn.add_column(
            column,
            no_wrap=index > 0 and not last,
            overflow="fold",
            justify="left" if index == 0 or last else "right",
        )
    for row in table.rows:
        drawn.add_row(*(_plain(cell) for cell in row))
    return drawn
