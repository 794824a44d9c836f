"""Questions that do not fit a model (too long for its context, a label that is no single token) are skipped.

A run refuses the first of them before it computes anything; only then are all of them looked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from edgecal.errors import InputError, ModelError

if TYPE_CHECKING:
    from edgecal.api.loaded import LoadedQuestions
    from edgecal.pair.run import RunOptions
    from edgecal.prompts import Prompt

__all__ = ["run_those_that_fit"]

Result = TypeVar("Result")


def run_those_that_fit(
    loaded: LoadedQuestions,
    run: Callable[[LoadedQuestions], Result],
    models: Sequence[tuple[str, str, Callable[[LoadedQuestions], Sequence[Prompt]]]],
    *,
    strict: bool,
    options: RunOptions,
) -> tuple[LoadedQuestions, Result]:
    """Runs models over questions, without those that do not fit one of them.

    Parameters
    ----------
    loaded: the questions.
    run: runs the models over all that it is given.
    models: each one's path, role, and which of the prompts it is given.
    strict: a question that does not fit is an error.
    options: how models are run.

    Returns
    -------
    The questions that were run, the others counted as skipped, and what `run` returned.

    Raises
    ------
    InputError: as `run`, where it is not for some of the questions alone; or more than a fifth do not fit.
    ModelError: a model could not be run.
    """
    from edgecal.pair.run import find_misfits

    try:
        return loaded, run(loaded)
    except InputError as error:
        if strict:
            raise
        misfits: dict[int, str] = {}
        try:
            for path, role, prompts in models:
                found = find_misfits(path, role, prompts(loaded), options=options)
                misfits |= dict(found) | misfits
        except ModelError:
            raise error from None
        if not 0 < len(misfits) < len(loaded.pairs):
            raise
    fitting = loaded.without(misfits)
    return fitting, run(fitting)
