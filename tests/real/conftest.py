"""Real models, for tests that ask for them: `make test-real` fetches them and says by EDGECAL_REAL which are meant.

Without that variable these tests are skipped. A model that could not be fetched is a failure in CI, and elsewhere a
skip with the reason, as is what lies beside the repository (see `tools.real_models`) and is not there.
"""

import json
import os

import pytest
from support.real_runs import sharpen, stamp
from tools.real_models import MODELS, UnavailableError, chosen, models_folder, post_trained, shared_folder

NAMES = chosen(os.environ.get("EDGECAL_REAL", ""))


@pytest.fixture(autouse=True)
def _own_cache(_session_cache):
    """What a test has computed, the next ones find: real models take their time."""


@pytest.fixture(scope="session")
def real_models():
    """The paths of the chosen models, by their names in `tools.real_models.MODELS`."""
    if not NAMES:
        pytest.skip("`make test-real` runs the tests on real models")
    paths = {name: models_folder() / MODELS[name].file_name for name in NAMES}
    missing = [str(path) for path in paths.values() if not path.exists()]
    if missing and os.environ.get("CI"):
        pytest.fail(f"not fetched: {', '.join(missing)}")
    return {name: path for name, path in paths.items() if path.exists()}


def _model(real_models, name):
    if name not in real_models:
        pytest.skip(f"{name} is not among the chosen models that could be fetched")
    return real_models[name]


@pytest.fixture(scope="session", params=NAMES or ["no model"])
def real_name(request, real_models):
    """The name of each chosen model in turn."""
    _model(real_models, request.param)
    return request.param


@pytest.fixture(scope="session")
def real_model(real_name, real_models):
    """The path of each chosen model in turn."""
    return real_models[real_name]


@pytest.fixture(scope="session")
def real_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("real")


@pytest.fixture(scope="session")
def real_stamped(real_model, real_folder):
    """Each chosen model in turn, with a temperature of 2.5 in its metadata."""
    return stamp(real_model, real_folder / f"{real_model.stem}.stamped.gguf", 2.5)


@pytest.fixture(scope="session")
def real_sharpened(real_model, real_folder):
    """Each chosen model in turn, with a final norm that doubles every logit: its right temperature is exactly 2."""
    return sharpen(real_model, real_folder / f"{real_model.stem}.sharpened.gguf")


@pytest.fixture(scope="session")
def real_pair(real_models):
    """(base, chat): Gemma 3 270M and a post-trained sibling of it."""
    base = _model(real_models, "gemma")
    try:
        return base, post_trained(base)
    except UnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def real_data():
    """The folder of real questions."""
    try:
        return shared_folder() / "data"
    except UnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def real_questions(real_data):
    """600 questions of ARC Easy, as records {question, choices, answer}."""
    return [json.loads(line) for line in (real_data / "arc-easy-test.jsonl").read_text("utf-8").splitlines()]


@pytest.fixture(scope="session")
def real_tasks(real_data, real_folder):
    """A file of 200 labelled few-shot prompts of three public tasks, with label words."""
    lines = (real_data / "tasks-cal.jsonl").read_text("utf-8").splitlines()[::10][:200]
    path = real_folder / "tasks.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path
