"""Sends each ticket to a team, and to a person where the model is not sure enough.

    python triage.py chat.calibrated.gguf tickets.txt 0.8

Each line of tickets.txt is a ticket; 0.8 is the least probability to act on, which `edgecal.threshold_for` derives from
tickets whose team is known. A ticket stays in memory while questions about it are open, so the second one, which only
some tickets need, costs its own words alone.
"""

import sys
from pathlib import Path

import edgecal
from edgecal import Choice, Score

TEAM = Choice(
    "Which team should answer this ticket?",
    {"billing": "payments, invoices, refunds", "technical": "errors, crashes", "sales": "prices, offers"},
    none_of_the_above=True,
)
URGENCY = Score("How urgent is it?", ["can wait", "this week", "today"])


def main(model_path, tickets_path, least):
    with edgecal.load(model_path) as model:
        for ticket in Path(tickets_path).read_text("utf-8").splitlines():
            with model.state(ticket, min_confidence=float(least)) as state:
                team = state.decide({"team": TEAM})["team"]
                if team.abstained:
                    print(f"{ticket:.40}  a person, because {team.doubts[-1]}")
                    continue
                urgency = state.decide({"urgency": URGENCY})["urgency"]
                print(f"{ticket:.40}  {team.key} ({team.probability:.0%})  urgency {urgency.score:.1f} of 2")


if __name__ == "__main__":
    main(*sys.argv[1:])
