"""An app that says nothing rather than something wrong.

    python abstain.py MODEL.gguf LABELLED.jsonl QUESTIONS.jsonl [WANTED_ACCURACY]

From questions with answers it finds the confidence above which the model is right as often as wanted. It then answers
the other questions, except those on which the model is not sure enough.
"""

import json
import sys
from pathlib import Path

import edgecal


def read(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]


def main(model_path, labelled_path, questions_path, wanted="0.9"):
    with edgecal.load(model_path) as model:
        print(model.calibration.sentence)

        labelled = read(labelled_path)
        answers = [model.choose(item["question"], item["choices"]) for item in labelled]
        threshold = edgecal.threshold_for(
            float(wanted),
            [answer.confidence for answer in answers],
            [answer.choice == item["answer"] for answer, item in zip(answers, labelled, strict=True)],
        )
        print(
            f"answering from a confidence of {threshold.min_confidence:.2f} on: at least {threshold.accuracy_low:.1%} "
            f"right, with {threshold.level:.0%} probability; {threshold.coverage:.0%} of such questions are answered"
        )

        for item in read(questions_path):
            answer = model.choose(item["question"], item["choices"], min_confidence=threshold.min_confidence)
            said = "I do not know" if answer.abstained else answer.text
            print(f"{item['question']}  {said}  ({answer.confidence:.0%})")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except edgecal.EdgecalError as error:
        sys.exit(f"abstain.py: {error}")
