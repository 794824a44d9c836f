"""`edgecal label`: every key of its screen, the lines of --plain, and what it prints."""

import asyncio
import io
import json
import subprocess
import sys

import pytest
from jsonschema import Draft202012Validator
from support.calibrated import BASE, CHAT, MODELS
from support.label_sessions import make_session

import edgecal.cli.label
from edgecal import InputError, OutputError
from edgecal.cli.label_screen import LabelScreen, ask_on_screen, draw_interval
from edgecal.results.schema import make_schema


def drawn(app):
    """What the screen shows, line by line."""
    return "\n".join("".join(part.text for part in strip) for strip in app.screen._compositor.render_strips())


def drive(session, *keys, size=(70, 16)):
    """Presses keys on a session's screen; the app, and what it showed before the first and after each key."""
    app = LabelScreen(session)
    seen = []

    async def run():
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            seen.append(drawn(app))
            for key in keys:
                if isinstance(key, tuple):
                    await pilot.resize_terminal(*key)
                else:
                    await pilot.press(key)
                await pilot.pause()
                seen.append(drawn(app) if app.is_running else "")

    asyncio.run(run())
    return app, seen


@pytest.fixture
def path(tmp_path):
    return tmp_path / "labels.jsonl"


def test_it_shows_the_question_its_options_and_keys_but_no_probability(path):
    session, _ = make_session(path)
    shown = session.question
    app, (seen,) = drive(session)
    for text in (
        shown.text,
        "question 1 · 0 labels",
        "stops at 1.5",
        "space unsure",
        *dict(shown.options).values(),
    ):
        assert text in seen
    assert app.failure.__class__ is KeyboardInterrupt  # nobody left it


def test_letters_of_either_case_answer(path):
    session, _ = make_session(path)
    drive(session, "a", "B")
    assert session.answers == [0, 1]


def test_keys_that_mean_nothing_do_nothing(path):
    session, _ = make_session(path)
    drive(session, "z", "1", "enter", "tab", "f1", "ctrl+p", "question_mark")
    assert session.answers == [] and not path.exists()


def test_unsure_undo_and_leave(path):
    session, _ = make_session(path)
    app, seen = drive(session, "a", "space", "backspace", "backspace", "backspace", "b", "escape")
    assert session.answers == [1] and app.failure is None
    assert "question 3 · 1 labels, 1 unsure" in seen[2]
    assert all("question 1 · 0 labels" in text for text in seen[4:6])


def test_the_interval_shrinks_before_ones_eyes(path):
    session, truth = make_session(path)
    _, seen = drive(session, *["ABCDE"[answer] for answer in truth[:25]])
    full = [text.count("█") for text in seen]
    assert full[0] == 68 and full[-1] < full[0]
    assert f"ratio {session.fit.interval[1] / session.fit.interval[0]:.3g}" in seen[-1]


def test_it_stops_when_narrow_and_the_last_answer_can_still_be_taken_back(path):
    session, truth = make_session(path, ratio=2.5)
    for answer in truth[:29]:
        session.answer(answer)
    key = "ABCDE"[truth[29]]
    app, seen = drive(session, key, "a", "space", "backspace", key, "enter")
    assert "narrow enough" in seen[1] and "narrow enough" in seen[3]
    assert "question 30" in seen[4] and "narrow enough" in seen[5]
    assert len(session.answers) == 30 and app.failure is None


def test_ctrl_c_is_an_interrupt_and_keeps_the_labels(path):
    session, _ = make_session(path)
    app, _ = drive(session, "a", "ctrl+c")
    assert app.failure.__class__ is KeyboardInterrupt
    assert make_session(path)[0].answers == [0]


def test_a_small_terminal_and_a_change_of_size(path):
    records = [
        {"question": "word " * 60, "choices": ["one", "two"]},
        {"question": "?", "choices": ["y", "n"]},
    ]
    session, _ = make_session(path, records=records)
    if session.question.text == "?":
        session.answer(None)
    _, seen = drive(session, (24, 8), "pagedown", "end", (100, 30), "a", size=(80, 24))
    assert "word" in seen[1] and "temperature" in seen[1]
    assert "two" not in seen[1] and "two" in seen[3]  # scrolled
    assert all(len(line) <= 24 for line in seen[1].splitlines())
    assert "two" in seen[4] and len(seen[4].splitlines()[-3].strip()) == 98
    assert session.answers[-1] == 0


def test_text_cannot_control_the_terminal_or_be_markup(path):
    records = [{"question": "\x1b[31m[b]bold[/b]\x07\n\tnext [", "choices": ["\x1b]0;t", "[red]x"]}]
    session, _ = make_session(path, records=[*records, {"question": "?", "choices": ["y", "n"]}])
    if session.question.text == "?":
        session.answer(None)
    _, (seen,) = drive(session)
    assert (
        "\x1b" not in seen
        and "\\x1b[31m[b]bold[/b]\\x07" in seen
        and "[red]x" in seen
        and "    next [" in seen
    )


def test_a_label_that_cannot_be_written_ends_it(path):
    session, _ = make_session(path)
    make_session(path)[0].answer(0)  # another program
    app, _ = drive(session, "a")
    assert isinstance(app.failure, OutputError)


@pytest.mark.parametrize("width", [1, 2, 10, 79])
def test_the_bar_is_as_wide_as_it_is_to_be(width):
    for interval in ((1.0, 8.0), (2.0, 2.0), (7.9, 8.0), (1.0, 1.001), (3.0, 5.0)):
        bar = draw_interval(interval, (1.0, 8.0), width)
        assert len(bar) == width and "█" in bar
    assert draw_interval((2.0, 4.0), (1.0, 8.0), 9) == "───███───"
    assert set(draw_interval((2.0, 2.0), (2.0, 2.0), 4)) <= {"█", "─"}


def test_the_screen_raises_what_ended_it(path, monkeypatch):
    session, _ = make_session(path)
    monkeypatch.setattr(LabelScreen, "run", lambda self, mouse: None)
    with pytest.raises(KeyboardInterrupt):
        ask_on_screen(session)


@pytest.fixture
def plain(path, monkeypatch, run):
    """`edgecal label --plain` on a made-up session, answered by lines."""

    def plain_by(*answers, arguments=(), **options):
        session = make_session(path, **options)[0]
        monkeypatch.setattr(edgecal.api, "label", lambda *_, **__: session)
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{answer}\n" for answer in answers)))
        return session, run("label", "base.gguf", "chat.gguf", "--plain", "-q", "-o", path, *arguments)

    return plain_by


def test_line_by_line(plain):
    session, done = plain("a", "", "B", "nonsense", "unsure", "undo", "UNDO", "leave", "a")
    assert done.code == 0 and session.answers == [0]
    assert done.err.count("expected A, B") == 2
    assert " 1 of 200 questions\n" in done.out and "left; the same command continues" in done.out


def test_the_end_of_input_leaves_and_a_finished_session_asks_nothing(plain, path):
    session, done = plain("a")
    assert session.answers == [0]
    for answer in make_session(path)[1][1:30]:
        session.answer(answer)
    _, done = plain("a", ratio=3.0)
    assert done.err == "" and "the interval is narrow enough" in done.out


def test_json(plain):
    _, done = plain("a", "unsure", arguments=["--json"])
    value = json.loads(done.out)
    Draft202012Validator(make_schema("label")).validate(value)
    assert (value["n_labelled"], value["n_unsure"], value["stopped"]) == (1, 1, "left")


def test_without_a_terminal_or_the_library_it_says_so_before_anything_runs(run, monkeypatch):
    done = run("label", "base.gguf", "chat.gguf")
    assert (done.code, done.err.count("\n")) == (2, 1) and "--plain" in done.err
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(edgecal.cli.label, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'edgecal\[label\]'"):
        edgecal.cli.label._check_screen()
    monkeypatch.undo()


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_real_pair_and_help_without_the_library(tmp_path, data_file):
    arguments = ["label", BASE, CHAT, "--data", data_file, "--limit", "30", "-t", "1", "--plain"]
    code = "import sys; from edgecal.cli import main; sys.modules['textual'] = None; main(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        input="a\nb\n",
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    assert "2 of 30 questions" in done.stdout and "Traceback" not in done.stderr
    assert len((tmp_path / "labels.jsonl").read_text("utf-8").splitlines()) == 2


@pytest.fixture
def data_file(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text((MODELS / "questions/dev.jsonl").read_text("utf-8"), "utf-8")
    return path
