"""Which temperature a question takes: that of its type and size, else of its type, else the file's, else none."""

import pytest

from edgecal.decisions import BUCKETS, DecisionOptions, TypedTemperature, TypedTemperatures, bucket_of
from edgecal.errors import InputError


def test_llama_cpps_buckets():
    names = [bucket_of(n) for n in range(2, 257)]
    assert names[:11] == ["2", "3_5", "3_5", "3_5", "6_10", "6_10", "6_10", "6_10", "6_10", "11", "11"]
    assert set(names[9:]) == {"11"}
    assert [name for name, _, _ in BUCKETS] == ["2", "3_5", "6_10", "11"]


def test_the_chain():
    temperatures = TypedTemperatures(
        general=3.0,
        typed={
            "choice": TypedTemperature(2.0, True),
            "choice.3_5": TypedTemperature(1.5, False),
            "noul": TypedTemperature(0.7),
        },
        noul_bias=0.25,
    )
    assert temperatures.find("choice", 3).temperature == 1.5
    assert temperatures.find("choice", 3).settled is False
    assert temperatures.find("choice", 3).doubt == "the temperature of choice.3_5 is unsettled"
    two = temperatures.find("choice", 2)
    assert (two.temperature, two.settled, two.bias) == (2.0, True, 0.0)
    assert "that of all choice questions; the file has none for 2 options" in two.doubt
    noul = temperatures.find("noul", 2)
    assert (noul.temperature, noul.settled, noul.bias, noul.doubt) == (0.7, None, 0.25, None)
    score = temperatures.find("score", 5)
    assert (score.temperature, score.settled) == (3.0, False)
    assert "multiple-choice questions, not on score questions" in score.doubt


def test_a_file_without_any():
    found = TypedTemperatures().find("choice", 4)
    assert (found.temperature, found.settled, found.bias) == (1.0, None, 0.0)
    assert found.doubt == "the file holds no temperature, so the probability is the model's own"


def test_how_to_ask_is_the_callers_then_the_files_then_the_default():
    file = TypedTemperatures(readout="letters", orders="1")
    assert (DecisionOptions().for_file(file).readout, DecisionOptions().for_file(file).orders) == (
        "letters",
        1,
    )
    asked = DecisionOptions(readout="texts", orders="auto").for_file(file)
    assert (asked.readout, asked.orders) == ("texts", "auto")
    assert DecisionOptions().for_file(TypedTemperatures()).readout == "labels"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"readout": "letter"}, "readout is 'letter', expected one of labels, letters, texts"),
        ({"orders": 0}, "orders is 0"),
        ({"min_mass": 1.01}, "min_mass is 1.01, expected a number from 0 to 1"),
        ({"min_mass": float("nan")}, "min_mass is nan"),
        ({"min_confidence": -0.1}, "min_confidence is -0.1"),
        ({"min_confidence": "0.5"}, "min_confidence is '0.5'"),
        ({"min_mass": True}, "min_mass is True"),
        ({"order_margin": -1}, "order_margin is -1"),
    ],
)
def test_options_out_of_range(options, said):
    with pytest.raises(InputError) as caught:
        DecisionOptions(**options)
    assert str(caught.value).startswith(said)
