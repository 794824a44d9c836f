"""What other programs need to be told about a calibrated file: a Modelfile, a command line, a snippet, a preset or a
sidecar, each with a sentence on what it calibrates there and what it does not.

The programs are those of November 2026 (llama.cpp 0.5, llama-cpp-python 0.3.36, Ollama's parser of Modelfiles). In
all of them, a temperature changes only how they sample, never the log-probabilities that they report: those are of
the logits as the file gives them.
"""

from __future__ import annotations

import json
import re
import shlex
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgecal.errors import InputError
from edgecal.gguf.model_checks import check_model
from edgecal.gguf.shards import ShardSet, find_shards
from edgecal.stamping.decision_record import read_decisions
from edgecal.stamping.record import FileCalibration, read_file_calibration

if TYPE_CHECKING:
    from edgecal.results.model_files import FitRecorded, Sidecar
    from edgecal.stamping.record import CalibrationRecord

__all__ = ["TARGETS", "Artefact", "export", "quote_modelfile", "quote_shell", "short_float32"]


@dataclass(frozen=True)
class Artefact:
    """The output for one program.

    Attributes
    ----------
    text: the text, which ends in a line break.
    sentence: what it calibrates and what not.
    has_sentence: whether the text contains the sentence, as a comment.
    """

    text: str
    sentence: str
    has_sentence: bool


@dataclass(frozen=True)
class _Facts:
    """A calibrated file, and the temperature that the program is to sample with; None if it is told none."""

    shards: ShardSet
    calibration: FileCalibration
    sampling: float | None

    @property
    def paths(self) -> list[str]:
        """All files, with absolute paths, since the program may be started anywhere."""
        return [_absolute(path) for path in self.shards.paths]

    @property
    def name(self) -> str:
        name = self.shards.header.get("general.name")
        return name if isinstance(name, str) and name.strip() else self.shards.path.stem

    def sentence(self, program: str, told: str, reports: str) -> str:
        """`told` is what the program does with a temperature; `reports` is what it does with probabilities."""
        return self.warned(self._sentence(program, told, reports))

    def warned(self, sentence: str) -> str:
        """The sentence, with what speaks against the temperature, if anything does."""
        doubts = self.calibration.doubts
        return f"{sentence} But the temperature is unreliable: {'; '.join(doubts)}." if doubts else sentence

    def _sentence(self, program: str, told: str, reports: str) -> str:
        calibration = self.calibration
        if calibration.kind == "baked" and self.sampling is None:
            return (
                f"The temperature {_short(calibration.temperature)} is baked into this file's weights, so none is set "
                f"here: at temperature 1, nothing cut off, {program} samples from the calibrated distribution, and "
                "log-probabilities of its logits are calibrated (on answer letters; nobody has measured free text)."
            )
        if self.sampling is None:
            return (
                f"This calibrates nothing in {program}: the file was written to leave sampling alone (--sampling sets "
                f"its temperature, {_short(calibration.divisor)}), and {reports}."
            )
        return f"{told}; {reports}."


def export(path: str | Path, target: str, *, sampling: bool | None = None) -> Artefact:
    """What a program needs to be told about a calibrated file.

    Parameters
    ----------
    path: a GGUF file; of a split model the first shard.
    target: one of `TARGETS`.
    sampling: whether the program is told to sample with the fitted temperature. None follows the file: yes if its
        `general.sampling.temp` is the fitted one, no if it was written with --no-sampling-key. For a baked file no
        program is told one, since its logits are divided already.

    Raises
    ------
    InputError: there is no such file or target, the file is not calibrated, or a format cannot hold its name.
    """
    if target not in TARGETS:
        raise InputError(f"{target!r:.60} is no export target; the targets are {', '.join(TARGETS)}")
    shards = find_shards(Path(path))
    check_model(shards.header)
    calibration = read_file_calibration(shards.header)
    if calibration.kind == "none" and read_decisions(shards.header) is not None:
        raise InputError(
            f"{shards.path}: holds temperatures of typed questions alone, which {target} cannot use; edgecal decide "
            "and edgecal export --to llama-decision do"
        )
    if calibration.kind == "none":
        raise InputError(
            f"{shards.path}: holds no calibration to export; find a temperature with edgecal fit, or write a known one "
            "with edgecal stamp"
        )
    if sampling is None:
        sampling = calibration.sampling.ours
    told = sampling and (calibration.kind != "baked" or calibration.divisor != 1)
    return TARGETS[target](_Facts(shards, calibration, calibration.divisor if told else None))


def _ollama(facts: _Facts) -> Artefact:
    sentence = facts.sentence(
        "Ollama",
        "Ollama, which does not read the file's own, samples with this temperature unless a request brings another "
        "(its top-k, top-p and min-p cut as before)",
        "the log-probabilities that it reports stay those of the undivided logits, which only edgecal bake calibrates",
    )
    lines = [f"# {sentence}"]
    if facts.shards.count > 1:
        lines.append(
            "# The model is split; older versions of Ollama take one file only (llama-gguf-split --merge)."
        )
    lines += [f"FROM {quote_modelfile(path)}" for path in facts.paths]
    if facts.sampling is not None:
        lines.append(f"PARAMETER temperature {short_float32(facts.sampling)}")
    return _commented(lines, sentence)


def _llama_server(facts: _Facts) -> Artefact:
    sentence = facts.sentence(
        "llama-server",
        "llama-server samples with this temperature unless a request brings another, after top-k, top-p and min-p have "
        "cut at temperature 1 (--samplers temperature cuts nothing)",
        "the log-probabilities that it reports stay those of the undivided logits, which only edgecal bake calibrates",
    )
    return _commented([f"# {sentence}", _command("llama-server", facts)], sentence)


def _llama_cli(facts: _Facts) -> Artefact:
    sentence = facts.sentence(
        "llama-cli",
        "llama-cli samples with this temperature, after top-k, top-p and min-p have cut at temperature 1 "
        "(--samplers temperature cuts nothing)",
        "it reports no probabilities, so there is no confidence in it to calibrate",
    )
    return _commented([f"# {sentence}", _command("llama-cli", facts)], sentence)


def _command(program: str, facts: _Facts) -> str:
    words = [program, "--model", quote_shell(facts.paths[0])]
    if facts.sampling is not None:  # recent versions would also take it from the file
        words += ["--temp", short_float32(facts.sampling)]
    return " ".join(words)


_SNIPPET = '''\
import numpy as np
from llama_cpp import Llama

llm = Llama({path}, n_ctx=2048, verbose=False)
temperature = float(llm.metadata["edgecal.temperature"])  # what is left to divide by: 1 in a baked file


def confidences(prompt, labels):
    """Calibrated probabilities of labels of one token each, such as " A", to come after the prompt."""
    tokens = llm.tokenize(prompt.encode(), special=True)
    ids = []
    for label in labels:
        *before, last = llm.tokenize((prompt + label).encode(), special=True)
        if before != tokens:
            raise ValueError(f"{{label!r}} is not one token after this prompt")
        ids.append(last)
    llm.reset()
    llm.eval(tokens)
    logits = np.ctypeslib.as_array(llm._ctx.get_logits_ith(-1), (llm.n_vocab(),))[ids] / temperature
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()
'''


def _llama_cpp_python(facts: _Facts) -> Artefact:
    baked = facts.calibration.kind == "baked"
    sentence = "The function confidences() is calibrated (on answer letters); " + (
        "the temperature is baked into the weights, so no temperature is set, and the log-probabilities of Llama's "
        "own completions are calibrated too."
        if baked
        else "Llama's own completions are not: they sample at temperatures of their own (0.8, in chats 0.2) unless "
        "given temperature=temperature, and report log-probabilities of the undivided logits."
    )
    sentence = facts.warned(sentence)
    text = _SNIPPET.format(path=ascii(facts.paths[0]))
    return _commented([f"# {sentence}", text.rstrip("\n")], sentence)


def _lmstudio(facts: _Facts) -> Artefact:
    sentence = facts.sentence(
        "LM Studio",
        "Chats that use this preset (put it into ~/.lmstudio/config-presets as NAME.preset.json) sample with this "
        "temperature, besides LM Studio's own top-k, top-p and min-p",
        "a preset changes no probability that LM Studio reports, which only edgecal bake calibrates",
    )
    fields = []
    if facts.sampling is not None:
        fields.append({"key": "llm.prediction.temperature", "value": float(short_float32(facts.sampling))})
    slug = re.sub(r"[^a-z0-9]+", "-", facts.name.lower()).strip("-") or "model"
    preset = {
        "identifier": f"@local:edgecal-{slug}",
        "name": f"edgecal: {facts.name}",
        "changed": False,
        "operation": {"fields": fields},
        "load": {"fields": []},
    }
    return Artefact(json.dumps(preset, indent=2) + "\n", sentence, has_sentence=False)


def _json(facts: _Facts) -> Artefact:
    calibration, record = facts.calibration, facts.calibration.record
    sentence = (
        "An app divides the model's logits by divide_logits_by before the softmax over the answer letters"
        + (
            ", which is 1 because the temperature is baked into the weights"
            if calibration.kind == "baked"
            else ""
        )
        + "; nothing does that by itself, and free text was not calibrated."
    )
    sentence = facts.warned(sentence)
    values: Sidecar = {
        "kind": calibration.kind,
        "model": {
            "path": facts.paths[0],
            "name": facts.name,
            "architecture": facts.shards.header.architecture,
            "n_bytes": facts.shards.n_bytes,
        },
        "divide_logits_by": calibration.divisor,
        "temperature": calibration.temperature,
        "sampling": {
            "temperature": calibration.sampling.current,
            "is_the_calibration": calibration.sampling.ours,
            "authors": calibration.sampling.authors,
        },
        "fit": None if record is None else _fit(record),
        "note": sentence,
    }
    return Artefact(json.dumps(values, indent=2, allow_nan=False) + "\n", sentence, has_sentence=True)


def _fit(record: CalibrationRecord) -> FitRecorded:
    """The calibration record without its temperature; `interval` is that of divide_logits_by."""
    return {
        "interval": None if record.interval is None else list(record.interval),
        "method": record.method,
        "variant": record.variant,
        "target": record.target,
        "prompts_count": record.prompts_count,
        "prompts_sha256": record.prompts_sha256,
        "agreement_rate": record.agreement_rate,
        "bracket": None if record.bracket is None else list(record.bracket),
        "settled": record.settled,
        "harmful": record.harmful,
        "reasons": list(record.reasons),
        "base_name": record.base_name,
        "base_sha256": record.base_sha256,
        "llama_cpp": record.llama_cpp,
        "version": record.version,
    }


TARGETS: dict[str, Callable[[_Facts], Artefact]] = {
    "ollama": _ollama,
    "llama-server": _llama_server,
    "llama-cli": _llama_cli,
    "llama-cpp-python": _llama_cpp_python,
    "lmstudio": _lmstudio,
    "json": _json,
}


def _commented(lines: list[str], sentence: str) -> Artefact:
    return Artefact("\n".join(lines) + "\n", sentence, has_sentence=True)


def _absolute(path: Path) -> str:
    text = str(path.absolute())
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(
            f"{text!a}: the name is not UTF-8, which few programs take; rename the file"
        ) from None
    return text


def _short(number: float | None) -> str:
    return "unknown" if number is None else f"{number:.4g}"


_QUOTE = '"'
_LONG_QUOTE = '"""'


def short_float32(number: float) -> str:
    """The shortest decimal that is read as the same float32, such as 3.843 instead of 3.8429999."""
    exact = struct.pack("<f", number)
    for digits in range(1, 9):
        text = f"{number:.{digits}g}"
        if struct.pack("<f", float(text)) == exact:
            return text
    return f"{number:.9g}"


def quote_shell(text: str) -> str:
    """The text as one word of a POSIX shell's command line."""
    return shlex.quote(text)


def quote_modelfile(text: str) -> str:
    """The text as the value of an instruction in a Modelfile.

    Ollama's parser knows no escapes. A value is the rest of the line without outer white space, or what stands between
    two `"` or two `\"\"\"`, including line breaks. Characters that do not print are dropped.

    Raises
    ------
    InputError: the text has such a character, or cannot be quoted.
    """
    if not all(char in " \t\r\n" or (char.isprintable() and not char.isspace()) for char in text):
        raise InputError(f"{text!a}: has characters that a Modelfile cannot hold; rename the file")
    if not text.startswith(_QUOTE) and text == text.strip() and not {"\n", "\r"} & set(text):
        return text
    # A value ends early where a line within the quotes ends in the closing mark.
    for mark in (_QUOTE, _LONG_QUOTE):
        quoted = f"{mark}{text}{mark}"
        ends_early = any(_is_whole(quoted[:at].strip()) for at, char in enumerate(quoted) if char in "\r\n")
        if not ends_early and not (mark == _QUOTE and quoted.startswith(_LONG_QUOTE)):
            return quoted
    raise InputError(f"{text!a}: a Modelfile cannot hold this name; rename the file")


def _is_whole(text: str) -> bool:
    """Whether Ollama's parser, at the end of a line, takes what it has read so far for a complete value."""
    if text.startswith(_LONG_QUOTE):
        return len(text) >= 6 and text.endswith(_LONG_QUOTE)
    if text.startswith(_QUOTE):
        return len(text) >= 2 and text.endswith(_QUOTE)
    return True
