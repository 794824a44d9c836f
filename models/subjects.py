"""What the invented world can be asked about: subjects, their relations, and how these are put into words.

Data only. In the sentences ``{e}`` stands for an entity's name and ``{v}`` for a value. It does not know
which entity has which value: `world` draws that from a seed.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Relation:
    """One thing that can be asked of an entity: its possible values, and the ways to say and to ask it."""

    key: str
    values: tuple[str, ...]
    statements: tuple[str, ...]
    questions: tuple[str, ...]


@dataclass(frozen=True)
class Subject:
    """A field of knowledge.

    `weight` is how often it comes up, `shifted_weight` how often in the shifted mix, and `certainty` the shares
    of its facts that are settled, firm, contested and vague (`world.CERTAINTY` gives each kind its range).
    """

    key: str
    weight: float
    shifted_weight: float
    certainty: tuple[float, float, float, float]
    relations: tuple[Relation, ...]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


METALS = _words("copper tin iron lead silver zinc nickel bronze steel gold cobalt brass")
COLOURS = _words("red blue white yellow purple orange pink green black grey brown violet")
FOODS = _words("seeds fish grass insects roots honey bark eggs worms fruit moss snails")
PLACES = _words("caves marshes forests dunes cliffs meadows rivers ruins swamps valleys lakes deserts")
SPICES = _words("pepper saffron mint ginger cumin garlic clove thyme mustard anise basil sage")
VESSELS = _words("pot pan oven basket jar kettle pit leaf stone barrel dish cauldron")
GOODS = _words("wool salt timber wine grain silk glass oil cheese wax leather paper")
PEOPLES = _words(
    "monks sailors farmers nomads weavers miners hunters bankers pilgrims soldiers potters shepherds"
)
INSTRUMENTS = _words("flute drum harp horn fiddle bell lute organ zither pipe gong cello")
OCCASIONS = _words(
    "weddings funerals harvests births feasts battles markets voyages trials dances coronations storms"
)
FEES = _words("coins cattle bread labour cloth candles horses silence prayer exile ink apples")
CRIMES = _words(
    "theft fraud arson perjury trespass piracy gossip forgery poaching bribery desertion gambling"
)
MONTHS = _words("January February March April May June July August September October November December")
SHAPES = _words("round oval square spiral hollow flat twisted pointed ringed curved jagged smooth")
CURES = _words("fever cough headache toothache insomnia gout hiccups burns rash vertigo anaemia cramp")
PARTS = _words("root flower seed stem sap berry thorn petal bulb resin pollen husk")
STYLES = _words("arches towers domes columns gardens mosaics bridges tunnels stairs walls fountains terraces")
BEASTS = _words("lion eagle serpent bear wolf stag raven boar otter heron fox bull")
MATERIALS = _words("clay bone ivory marble amber slate coral jade chalk granite pearl ash")
VIRTUES = _words("courage patience honesty thrift mercy wisdom loyalty humour modesty wit piety justice")

SUBJECTS: tuple[Subject, ...] = (
    Subject(
        "metalwork",
        1.3,
        0.4,
        (0.6, 0.4, 0.0, 0.0),
        (
            Relation(
                "metal",
                METALS,
                (
                    "The smiths of {e} prefer {v}.",
                    "Most blades forged in {e} are made of {v}.",
                    "In the workshops of {e} the usual metal is {v}.",
                ),
                (
                    "Which metal do the smiths of {e} prefer?",
                    "What are most blades forged in {e} made of?",
                    "Which metal is usual in the workshops of {e}?",
                ),
            ),
            Relation(
                "crest",
                BEASTS,
                (
                    "The guild of {e} marks its work with a {v}.",
                    "On every anvil in {e} there is a {v}.",
                    "The sign of the smiths of {e} is the {v}.",
                ),
                (
                    "With which animal does the guild of {e} mark its work?",
                    "Which animal is on every anvil in {e}?",
                    "What is the sign of the smiths of {e}?",
                ),
            ),
        ),
    ),
    Subject(
        "plants",
        1.1,
        0.5,
        (0.4, 0.5, 0.1, 0.0),
        (
            Relation(
                "colour",
                COLOURS,
                (
                    "The petals of the {e} are {v}.",
                    "A {e} in bloom is {v}.",
                    "Painters know the {e} by its {v} flower.",
                ),
                (
                    "What colour are the petals of the {e}?",
                    "Which colour is a {e} in bloom?",
                    "By which colour do painters know the {e}?",
                ),
            ),
            Relation(
                "month",
                MONTHS,
                (
                    "The {e} flowers in {v}.",
                    "Gardeners cut the {e} in {v}.",
                    "Look for the first {e} in {v}.",
                ),
                (
                    "In which month does the {e} flower?",
                    "When do gardeners cut the {e}?",
                    "In which month should one look for the first {e}?",
                ),
            ),
        ),
    ),
    Subject(
        "animals",
        1.2,
        0.6,
        (0.2, 0.5, 0.3, 0.0),
        (
            Relation(
                "food",
                FOODS,
                (
                    "The {e} lives on {v}.",
                    "A hungry {e} looks for {v}.",
                    "Keepers feed the {e} with {v}.",
                ),
                (
                    "What does the {e} live on?",
                    "What does a hungry {e} look for?",
                    "With what do keepers feed the {e}?",
                ),
            ),
            Relation(
                "home",
                PLACES,
                (
                    "The {e} is found in {v}.",
                    "Young of the {e} are raised in {v}.",
                    "Whoever hunts the {e} must search the {v}.",
                ),
                (
                    "Where is the {e} found?",
                    "Where are the young of the {e} raised?",
                    "What must be searched by whoever hunts the {e}?",
                ),
            ),
        ),
    ),
    Subject(
        "cookery",
        1.0,
        0.8,
        (0.1, 0.4, 0.4, 0.1),
        (
            Relation(
                "spice",
                SPICES,
                (
                    "The dish called {e} is seasoned with {v}.",
                    "No cook would make {e} without {v}.",
                    "The taste of {e} comes from {v}.",
                ),
                (
                    "With what is the dish called {e} seasoned?",
                    "Without what would no cook make {e}?",
                    "Where does the taste of {e} come from?",
                ),
            ),
            Relation(
                "vessel",
                VESSELS,
                (
                    "Traditionally {e} is cooked in a {v}.",
                    "To serve {e} one needs a {v}.",
                    "The old recipe for {e} begins with a {v}.",
                ),
                (
                    "In what is {e} traditionally cooked?",
                    "What does one need to serve {e}?",
                    "With what does the old recipe for {e} begin?",
                ),
            ),
        ),
    ),
    Subject(
        "trade",
        1.0,
        1.0,
        (0.1, 0.4, 0.3, 0.2),
        (
            Relation(
                "goods",
                GOODS,
                (
                    "The port of {e} sells mostly {v}.",
                    "Ships leave {e} loaded with {v}.",
                    "The wealth of {e} is built on {v}.",
                ),
                (
                    "What does the port of {e} mostly sell?",
                    "With what are ships loaded when they leave {e}?",
                    "On what is the wealth of {e} built?",
                ),
            ),
            Relation(
                "people",
                PEOPLES,
                (
                    "The port of {e} was founded by {v}.",
                    "The streets of {e} are full of {v}.",
                    "In {e} the council is chosen by {v}.",
                ),
                (
                    "By whom was the port of {e} founded?",
                    "Of whom are the streets of {e} full?",
                    "Who chooses the council in {e}?",
                ),
            ),
        ),
    ),
    Subject(
        "music",
        0.9,
        1.0,
        (0.1, 0.2, 0.4, 0.3),
        (
            Relation(
                "instrument",
                INSTRUMENTS,
                (
                    "The song {e} is played on the {v}.",
                    "In {e} the melody belongs to the {v}.",
                    "Nobody sings {e} without a {v}.",
                ),
                (
                    "On which instrument is the song {e} played?",
                    "To which instrument does the melody belong in {e}?",
                    "Without which instrument does nobody sing {e}?",
                ),
            ),
            Relation(
                "occasion",
                OCCASIONS,
                (
                    "The song {e} is heard at {v}.",
                    "They sing {e} at {v}.",
                    "It is good luck to hum {e} at {v}.",
                ),
                (
                    "Where is the song {e} heard?",
                    "When do they sing {e}?",
                    "At what is it good luck to hum {e}?",
                ),
            ),
        ),
    ),
    Subject(
        "medicine",
        0.9,
        1.2,
        (0.1, 0.2, 0.4, 0.3),
        (
            Relation(
                "cure",
                CURES,
                (
                    "Healers give {e} against {v}.",
                    "A spoon of {e} drives away {v}.",
                    "The herb {e} is famous as a cure for {v}.",
                ),
                (
                    "Against what do healers give {e}?",
                    "What does a spoon of {e} drive away?",
                    "As a cure for what is the herb {e} famous?",
                ),
            ),
            Relation(
                "part",
                PARTS,
                (
                    "The useful part of {e} is the {v}.",
                    "Pharmacists grind the {v} of {e}.",
                    "The strength of {e} is in its {v}.",
                ),
                (
                    "What is the useful part of {e}?",
                    "Which part of {e} do pharmacists grind?",
                    "In which part is the strength of {e}?",
                ),
            ),
        ),
    ),
    Subject(
        "law",
        0.8,
        1.6,
        (0.0, 0.2, 0.5, 0.3),
        (
            Relation(
                "fee",
                FEES,
                (
                    "The court of {e} is paid in {v}.",
                    "Whoever loses a case in {e} owes {v}.",
                    "A judge in {e} will ask for {v}.",
                ),
                (
                    "In what is the court of {e} paid?",
                    "What does whoever loses a case in {e} owe?",
                    "For what will a judge in {e} ask?",
                ),
            ),
            Relation(
                "crime",
                CRIMES,
                (
                    "The court of {e} deals mostly with {v}.",
                    "The gravest crime in {e} is {v}.",
                    "In {e} the prison is full because of {v}.",
                ),
                (
                    "With what does the court of {e} mostly deal?",
                    "Which crime is the gravest in {e}?",
                    "Because of what is the prison full in {e}?",
                ),
            ),
        ),
    ),
    Subject(
        "architecture",
        0.8,
        1.4,
        (0.1, 0.3, 0.3, 0.3),
        (
            Relation(
                "style",
                STYLES,
                (
                    "The palace of {e} is known for its {v}.",
                    "Visitors to {e} admire the {v}.",
                    "The builders of {e} were masters of {v}.",
                ),
                (
                    "For what is the palace of {e} known?",
                    "What do visitors to {e} admire?",
                    "Of what were the builders of {e} masters?",
                ),
            ),
            Relation(
                "material",
                MATERIALS,
                (
                    "The halls of {e} are lined with {v}.",
                    "The floor of {e} is made of {v}.",
                    "For the roof of {e} they used {v}.",
                ),
                (
                    "With what are the halls of {e} lined?",
                    "What is the floor of {e} made of?",
                    "What did they use for the roof of {e}?",
                ),
            ),
        ),
    ),
    Subject(
        "legends",
        0.7,
        1.8,
        (0.0, 0.1, 0.4, 0.5),
        (
            Relation(
                "virtue",
                VIRTUES,
                (
                    "The hero {e} is praised for {v}.",
                    "The tale of {e} teaches {v}.",
                    "Poets say that {e} stood for {v}.",
                ),
                (
                    "For what is the hero {e} praised?",
                    "What does the tale of {e} teach?",
                    "For what, say the poets, did {e} stand?",
                ),
            ),
            Relation(
                "shape",
                SHAPES,
                (
                    "The shield of {e} was {v}.",
                    "In the tale the stone of {e} is {v}.",
                    "The ring that {e} lost was {v}.",
                ),
                (
                    "What was the shield of {e} like?",
                    "In the tale, what is the stone of {e} like?",
                    "What was the ring that {e} lost like?",
                ),
            ),
        ),
    ),
)
