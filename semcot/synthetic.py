"""Synthetic problems whose answer and reasoning are right by construction: arithmetic in stories or bare, coin flips.

Everything is drawn from ``random.Random(seed)``: the same arguments give the same problems on every machine. The
splits "train" and "eval" never share a question, whatever the seeds: a question belongs to "eval" when its SHA-256 is
divisible by 10 and to "train" otherwise.
"""

import hashlib
import random
import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

SPLITS = ("train", "eval")
OPERATIONS = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__, "/": int.__floordiv__}


class Kind(NamedTuple):
    """A class of countable things with the words that go well with it (things and containers in the singular)."""

    things: tuple[str, ...]
    pairs: tuple[str, ...]  # two adjectives that tell two sorts of a thing apart
    containers: tuple[str, ...]
    gain: tuple[str, ...]  # past tense, followed by a number: "bought 5 more"
    lose: tuple[str, ...]  # past tense, followed by a number: "gave away 5 of them"


def _kind(things: str, pairs: str, containers: str, gain: str, lose: str) -> Kind:
    return Kind(*(tuple(words.split(", ")) for words in (things, pairs, containers, gain, lose)))


KINDS = {
    "treat": _kind(
        "cookie, cupcake, muffin, brownie, scone, doughnut, biscuit, tart, waffle, pancake",
        "chocolate cinnamon, lemon ginger, plain honey, pumpkin almond, large small, chocolate plain, lemon almond",
        "box, tray, bag, plate, tin, package",
        "baked, made, bought, prepared",
        "ate, sold, gave away, served, handed out",
    ),
    "candy": _kind(
        "lollipop, gumdrop, jelly bean, candy cane, gummy bear, caramel, toffee, peppermint, chocolate bar",
        "large small, plain fancy, cheap expensive, wrapped unwrapped",
        "bag, jar, box, bowl, packet, tin",
        "bought, got, won, collected",
        "ate, gave away, handed out, sold",
    ),
    "fruit": _kind(
        "apple, orange, pear, peach, plum, lemon, mango, melon, banana, apricot, kiwi, lime",
        "ripe unripe, large small, fresh bruised, big tiny",
        "basket, crate, bag, bowl, box, bucket",
        "picked, bought, gathered, collected",
        "ate, sold, gave away, threw away, used",
    ),
    "vegetable": _kind(
        "carrot, potato, tomato, onion, cucumber, pumpkin, radish, turnip, beet, cabbage, pepper",
        "large small, ripe unripe, fresh old, big tiny",
        "basket, crate, sack, box, bucket, bin",
        "picked, bought, harvested, gathered",
        "sold, gave away, cooked, threw away, used",
    ),
    "flower": _kind(
        "rose, tulip, daisy, lily, sunflower, carnation, orchid, daffodil, violet, marigold",
        "red white, yellow pink, purple white, red yellow, pink purple, orange white",
        "vase, bucket, basket, pot, box",
        "picked, bought, cut, gathered",
        "gave away, sold, used, threw out",
    ),
    "toy": _kind(
        "marble, sticker, stamp, trading card, seashell, toy car, action figure, button, bead, postcard, key chain, "
        "bottle cap, badge, pebble, poster, balloon, yo-yo, puzzle, game piece, toy soldier, ribbon",
        "red blue, green yellow, old new, large small, black white, shiny dull, silver golden, plain striped",
        "box, bag, jar, case, tin, bin",
        "found, bought, got, collected, received",
        "lost, gave away, sold, traded away",
    ),
    "school": _kind(
        "pencil, notebook, eraser, marker, folder, pen, ruler, crayon, paintbrush, paper clip, glue stick, envelope",
        "red blue, green yellow, black white, thick thin, old new, large small, purple orange, short long",
        "box, pack, case, bag, tray",
        "bought, found, got, received",
        "lost, gave away, used up, donated",
    ),
    "book": _kind(
        "book, magazine, comic book, novel, storybook, cookbook, movie, video game, puzzle book",
        "old new, funny serious, long short, cheap expensive, used new",
        "shelf, box, stack, case, crate",
        "bought, got, received, ordered",
        "sold, gave away, donated, lost",
    ),
    "clothing": _kind(
        "shirt, sock, sweater, towel, jacket, dress, hat, blouse, mitten, T-shirt, blanket, belt",
        "blue white, green gray, striped plain, old new, red black, thick thin, long short",
        "drawer, suitcase, pile, box, bag, basket",
        "bought, got, sewed, received",
        "donated, gave away, sold, threw out",
    ),
}

FEMALE_NAMES = tuple(
    "Abby Ada Alice Amara Amina Angela Anna April Beth Bianca Bonnie Carla Carol Carrie Chloe Clara Daisy Dana "
    "Debby Diana Elena Ella Elsie Emily Emma Erin Faye Fiona Gina Gloria Grace Gwen Haley Hannah Heidi Helen "
    "Irene Iris Isabel Ivy Jane Janet Jenny Julia Karen Katie Kavya Kelly Kim Lana Laura Leah Lena Lily Linda "
    "Lucy Luna Maria Marie Maya Megan Mei Mia Mila Molly Nadia Nancy Nina Nora Olivia Paige Paula Penny Priya "
    "Rachel Rita Robin Rosa Ruby Sally Sandra Sara Sofia Sonia Stella Susan Tara Tiffany Tina Uma Valerie Vanessa "
    "Vera Violet Wendy Yara Yuki Zara Zoe".split()
)
MALE_NAMES = tuple(
    "Aaron Adam Ahmed Alan Albert Alex Amir Andre Andrew Arjun Ben Billy Bobby Brad Brian Bruno Caleb Carl Carlos Chad "
    "Cody Colin Craig Dan Dave David Dean Diego Dylan Eddie Edgar Edward Elias Eric Ethan Felix Finn Frank Fred Gary "
    "George Greg Hal Harry Henry Hugo Ian Isaac Ivan Jack Jacob Jake Jamal Jason Jerry Joel John Jose Kaleb Karl Kenji "
    "Kevin Kyle Lee Leo Liam Louis Lucas Luke Marco Mark Mateo Max Mike Milo Ned Neil Nick Noah Oliver Omar Oscar Owen "
    "Paul Pedro Peter Philip Rafael Raj Ray Robert Roger Ryan Sam Scott Sean Simon Stan Steve Ted Tim Toby Tom Tony "
    "Trevor Tyler Victor Vincent Wade Walter Will Xavier Zach".split()
)
RELATIVES = tuple("brother sister cousin friend mother father grandmother uncle aunt neighbor classmate".split())
TIMES = (
    ("on Monday", "on Tuesday"), ("in the morning", "in the afternoon"), ("last week", "this week"),
    ("yesterday", "today"), ("on Saturday", "on Sunday"), ("in the spring", "in the fall"), ("in May", "in June"),
    ("before lunch", "after lunch"), ("on the first day", "on the second day"), ("on Thursday", "on Friday"),
)  # fmt: skip
DISTRACTORS = (
    "{n} is {z} years old",
    "{n} sits in row {z} at school",
    "{n}'s favorite number is {z}",
    "{n} likes to wear green",
    "{n} has a dog that is {z} years old",
    "there is a bakery on {n}'s street",
)

# The stories. A block is one family:
#   =  its equations; the kinds of thing it may be about; words drawn once for the whole story (name: this|that)
#   .  a fact (a clause, in the order of telling)     ?  the question     >  the reasoning, a sentence for each equation
# [this|that] is a free choice. Equations give p, q, r in their order; {p} in the reasoning is the whole equation.
# Numbers: a b c d large, s t u small, k l m factors. {n} the hero with {he} {him} {his}, {o} somebody else.
_STORIES = """
= a - b; treat candy fruit vegetable flower toy school book clothing
. [{n} had {a} {things}|There were {a} {things} in {n}'s {box}|{n} started the day with {a} {things}]
. {he} {lose} {b} of [them|the {things}]
? how many {things} [did {he} have left|does {he} still have|are left|remain]
> {n} had {a} {things} and {lose} {b}, so that leaves {p} {things}

= a + b; treat candy fruit vegetable flower toy school book
. {n} {gain} {a} {things} {t1}
. {he} {gain} {b} [more|more {things}|others] {t2}
? how many {things} [is that in all|is that altogether|does that make in total]
> {n} {gain} {a} and then {b}, so that is {p} {things} in all

= a + b; treat fruit vegetable flower toy school book clothing
. [{n} counted|{n} had|{n}'s {rel} owned|in the {box} there were] {a} {x1} {things} and {b} {x2} {things}
? how many {things} [were there in all|were there altogether|is that in total]
> {a} {x1} and {b} {x2} {things} together make {p} {things}

= s * k; treat candy fruit toy school
. {n} [had|filled|counted] {s} {boxes} of {things}
. [each {box} held {k} {things}|there were {k} {things} in each {box}|every {box} had {k} {things} in it]
? how many {things} [were there in all|did {he} have altogether|is that in total]
> {s} {boxes} with {k} {things} each make {p} {things}

= a / k; treat candy fruit vegetable flower toy school book clothing
. {n} [had|{gain}] {a} {things}
. {he} [put|sorted|divided] them [equally|evenly] into {k} {boxes}
? how many {things} [were in each {box}|went into each {box}|did each {box} hold]
> {a} {things} in {k} equal {boxes} means that each {box} held {p} {things}

= a / k; treat candy fruit vegetable toy school book
. {n} [had|{gain}] {a} {things} and wanted to put them in {boxes}
. [each {box} could hold {k} {things}|{he} put {k} {things} in each {box}]
? how many {boxes} [did {he} need|did {he} fill|could {he} fill]
> {a} {things} with {k} in each {box} fill {p} {boxes}

= s * k; ; item: ticket|sandwich|T-shirt|plant|notebook|candle|mug|poster|kite|lamp
. {n} bought {s} {items} [at the market|at the store|online|for {his} family|downtown]
. each {item} cost [${k}|{k} dollars]
? how [much money|many dollars|much] did {he} [spend|pay] [in all|altogether|for the {items}]
> {s} {items} at {k} dollars each cost {p} dollars

= a + b; toy candy fruit school book flower
. {n} [had|owned] {a} {things}[| last year| at the time]
. {o} had {b} more {things} than {n}
? how many {things} [did {o} have|were {o}'s]
> {o} had {b} more than {a}, so {o} had {p} {things}

= a - b; toy candy fruit school book flower
. {n} [had|owned] {a} {things}[| last year| at the time]
. {o} had {b} fewer {things} than {n}
? how many {things} [did {o} have|were {o}'s]
> {o} had {b} fewer than {a}, so {o} had {p} {things}

= a - b; toy candy fruit school book flower treat
. [{n} has {a} {things} and {o} has {b}|there are {a} {things} on {n}'s desk and {b} on {o}'s desk]
? how many more {things} [does {n} have than {o}|does {o} need to have as many as {n}]
> {n} has {a} and {o} has {b}, so the difference is {p} {things}

= a - b; toy book school clothing; verb: collect|pack|sort|label
. {n} wanted to {verb} {a} {things} [for the school fair|this month|by Friday|for a contest]
. {he} had already {verb}ed {b} of them
? how many more {things} did {he} [need to {verb}|have to {verb}]
> {b} of the {a} were done, so {he} still had to {verb} {p} {things}

= a - b; ; place: library|bank|museum|park; rider: person|passenger|child|student|tourist
. {a} {riders} were on [a|the] bus
. {b} of them got off at the {place}
? how many {riders} [stayed on the bus|were still on the bus|were left on the bus]
> {b} of the {a} got off, so the bus still carried {p} {riders}

= a - b; ; item: jacket|radio|skateboard|camera|backpack|watch
. {n} had saved [${a}|{a} dollars]
. {he} spent [${b}|{b} dollars] on a {item}
? how [much money|many dollars] did {he} have left
> {b} of the {a} dollars were spent, which leaves {p} dollars

= a - b; toy candy school book
. {n} had some {things}
. [{he} {gain} {b} more|{his} {rel} gave {him} {b} more]
. {he} now has {a} {things}
? how many {things} did {he} have [at first|in the beginning|to start with]
> {he} ended with {a} after adding {b}, so {he} began with {p} {things}

= a - b; toy candy treat book fruit
. {n} had {a} {things}
. [{his} {rel} took some of them and {n} had {b} left|{he} gave some of them to {his} {rel} and had {b} left]
? how many {things} did {his} {rel} get
> {b} of the {a} were left, so the {rel} got {p} {things}

= s * k; ; seat: desk|chair|seat|bench|table; room: classroom|hall|theater|library
. [a|the] {room} has {s} rows of {seats}
. [there are {k} {seats} in every row|each row has {k} {seats}]
? how many {seats} [does the {room} have|are there in all|are in the {room}]
> {s} rows of {k} make {p} {seats}

= a / m; ; prize: contest|raffle|lottery|spelling bee
. {n} and {his} friends, {m} people in all, won [${a}|{a} dollars] in a {prize}
. they shared the money equally
? how [much money|many dollars] did each person get
> {a} dollars shared by {m} people is {p} dollars

= s * k; ; act: reads|runs|walks|practices piano|paints|swims
. {n} {act} for {s} minutes [every day|each day|a day]
? how many minutes does {he} [spend on this|need for this] in {k} days
> {s} minutes a day for {k} days make {p} minutes

= a + b; ; act: biked|walked|drove|hiked|jogged; unit: mile|kilometer
. {n} {act} {a} {units} {t1}
. {he} {act} {b} more {units} {t2}
? how many {units} did {he} go [in all|altogether|in total]
> the two parts together are {p} {units}

= a - b; ; item: candle|icicle|snowman|ice sculpture
. a {item} was {a} inches tall
. {b} inches [of it |]melted away
? how many inches tall [was it then|was the {item} after that]
> {b} of the {a} inches are gone, so what was left of the {item} was {p} inches

= a - b, p + c; treat candy fruit vegetable flower toy school book clothing
. {n} had {a} {things}
. {he} {lose} {b} of them
. {he} [later|then] {gain} {c} [more|new ones]
? how many {things} [does {he} have now|did {he} end up with|would {he} have then|did {he} have in the end]
> after {he} {lose} {b}, {he} had {p} {things}
> then {he} {gain} {c}, so {he} had {q} {things}

= a + b, p - c; treat candy fruit vegetable flower toy school book
. {n} {gain} {a} {things} {t1} and {b} more {t2}
. [{he} {lose} {c} of them|{c} of them got ruined|{his} {rel} took {c} of them]
? how many {things} [did {he} have left|were left|does {he} still have]
> first there were {p} {things}
> {c} of them were gone, so that leaves {q} {things}

= a + b, p - c; treat fruit vegetable flower toy school book clothing
. [{n} had|{n} {gain}] {a} {x1} {things} and {b} {x2} {things}
. {he} {lose} {c} of the {things}
? how many {things} [are left|did {he} have left|remain]
> {a} {x1} and {b} {x2} ones make {p} {things}
> {he} {lose} {c}, so that leaves {q} {things}

= a - b, p - c; candy fruit toy school treat flower
. {n} had {a} {things}
. [{he} gave {b} to {his} {rel} and {c} to {o}|{he} gave {b} of them to {o} and lost {c} others]
? how many {things} [did {n} keep|did {n} have left|does {n} still have]
> after the first {b} were gone, {n} had {p} {things}
> after the other {c} were gone, {n} had {q} {things}

= a - b, p / k; treat fruit vegetable toy school book clothing flower
. {n} had {a} {things}
. {he} put {b} of them in one [big|special|separate] {box} and the rest evenly into {k} [smaller|other] {boxes}
? how many {things} [were in each of the {k} {boxes}|went into each of those {k} {boxes}]
> the rest was {p} {things}
> split over {k} {boxes}, each one got {q} {things}

= a - b, p / k; treat candy fruit vegetable flower toy school book
. {n} {gain} {a} {things}
. [{he} {lose} {b} of them|{b} of them got ruined|{his} {rel} took {b} of them]
. {he} [packed|put] the [rest|others|remaining {things}] into {boxes} with {k} in each {box}
? how many {boxes} [did {he} fill|did {he} need|did {he} use]
> after {b} were gone there were {p} {things}
> with {k} in each {box}, they filled {q} {boxes}

= a + b, p / k; treat fruit vegetable flower toy school book clothing
. {n} had {a} {x1} {things} and {b} {x2} {things}
. [{he} can put {k} {things} in each {box}|every {box} holds {k} {things}|{he} wants to put {k} of them in each {box}]
? how many {boxes} [could {he} fill|would {he} fill|does {he} need for all of them]
> together there were {p} {things}
> with {k} in each {box}, that makes {q} {boxes}

= a + b, p / k; treat candy fruit toy
. {n} {gain} {a} {things} and {his} {rel} {gain} {b}
. they [shared|split|divided] all of them equally among {k} [children|friends|neighbors|classmates]
? how many {things} did each of the {k} get
> together they had {p} {things}
> shared among {k}, each one got {q} {things}

= s - t, p * k; treat candy fruit toy school
. {n} bought {s} {boxes} of {things}
. {he} gave {t} [{boxes}|of the {boxes}] to {his} {rel}
. each {box} has {k} {things} [in it|inside]
? how many {things} does {n} still have
> {n} kept {p} {boxes}
> each has {k} in it, so {n} still has {q} {things}

= s + t, p * k; treat fruit toy school vegetable
. {n} [bought|ordered|carried|packed] {s} {boxes} of {x1} {things} and {t} {boxes} of {x2} {things}
. [each {box} had {k} {things} in it|there were {k} {things} in every {box}]
? how many {things} [did {he} have in all|were there in total|is that altogether]
> there were {p} {boxes}
> with {k} in each, that makes {q} {things}

= s + t, k * p; ; who: waiter|cook|server; spot: table|booth
. a {who} looked after {k} {spots}
. at each {spot} there were {s} [women|adults|grandparents] and {t} [men|children|teenagers]
? how many customers [were there in all|did the {who} have]
> each {spot} had {p} people
> {k} {spots} like that make {q} customers

= s * k, p + c; treat candy fruit toy school
. {n} had {s} {boxes} with {k} {things} in each
. [{he} also had {c} loose {things}|{he} then {gain} {c} more {things}|{his} {rel} gave {him} {c} more {things}]
? how many {things} did {he} have [in all|altogether|in total]
> the {boxes} held {p} {things}
> with the other {c} there were {q} {things}

= s * k, p - c; treat candy fruit vegetable toy school
. {n} {gain} {s} {boxes} of {things}
. each {box} had {k} {things}
. {he} {lose} {c} of the {things}
? how many {things} [did {he} have left|were left|remain]
> {s} {boxes} of {k} make {p} {things}
> {he} {lose} {c}, so that leaves {q} {things}

= a / m, p + c; candy toy treat fruit school
. {n} and {his} friends found a {box} of {a} {things}
. they shared the {things} equally among all {m} of them
. {n} already had {c} {things} at home
? how many {things} does {n} have now
> {n}'s share was {p} {things}
> with the {c} at home {n} has {q} {things}

= a / m, p - c; candy treat fruit toy
. {a} {things} were shared equally by {m} children, and {n} was one of them
. {n} [later|then] {lose} {c} of {his} share
? how many {things} [did {n} have left|does {n} still have]
> {n} got {p} {things}
> after {c} were gone, {n} had {q} {things}

= a + b, a + p; toy candy fruit school book flower
. {n} {gain} {a} {things}
. {o} {gain} {b} more {things} than {n}
? how many {things} is that [together|altogether|in all]
> {o} {gain} {b} more than {a}, that is {p} {things}
> together that is {q} {things}

= a - b, a + p; toy candy fruit school book treat
. {n} {gain} {a} {things}
. {o} {gain} {b} fewer {things} than {n}
? how many {things} is that [together|in all|in total]
> {o} got {b} fewer than {a}, that is {p} {things}
> together that is {q} {things}

= s * k, p + s; toy candy fruit school book
. {n} has {s} {things}
. {o} has {k} times as many {things} as {n}
? how many {things} do they have [together|altogether]
> {o} has {p} {things}
> together they have {q} {things}

= s * k, p - s; toy candy fruit school book
. {n} {gain} {s} {things}
. {o} {gain} {k} times as many {things}
? how many more {things} did {o} get than {n}
> {o} got {p} {things}
> that is more than {n} by {q} {things}

= a - b, p - b; toy candy fruit vegetable flower school book
. {n} and {o} [have|{gain}] {a} {things} [together|in all|altogether]
. {b} of the {things} are {n}'s and the [rest|others] are {o}'s
? how many more {things} does {o} have than {n}
> {o} has {p} {things}
> {n} has {b}, so {o} has more by {q} {things}

= s - t, p * k; ; item: kite|puppet|candle|magnet|bracelet|painting|picture frame|birdhouse|plant|card deck
. {n} was selling {items} for [${k}|{k} dollars] each [|at the fair|at a garage sale|at the market]
. {he} [started with|brought] {s} {items} and had {t} left at the end of the day
? how [much money|many dollars] did {he} [earn|make|take in]
> {he} sold {p} {items}
> at {k} dollars each, {he} earned {q} dollars

= s - t, p * k; toy book
. a full set has {s} {things}, and {n} owns {t} of them
. [every missing one|each of the missing ones] can be ordered for [${k}|{k} dollars]
? how [much money|many dollars] would it take to [order|get] all the missing ones
> {n} is missing {p} {things}
> at {k} dollars each, they would take {q} dollars

= a + b, p / k; ; prize: key ring|toy frog|sticker sheet|whistle|rubber duck|yo-yo; game: ring toss|pinball|air hockey
. {n} got {a} tickets from {game} and {b} tickets from [a racing game|basketball|a card game]
. [one|every] {prize} at the counter takes {k} tickets
? how many {prizes} can {he} [take home|get] for them
> {n} got {p} tickets
> at {k} tickets each, {he} can get {q} {prizes}

= a - b, p / k; ; big: board game|jacket|pair of shoes|ball; small: toy car|comic book|snack|notebook|puzzle
. {n} had {a} dollars
. {he} spent {b} of [them|the dollars] on a {big}
? how many {smalls} for [${k}|{k} dollars] each can {he} [get|pay for] with [the rest|what is left]
> {n} had {p} dollars left
> at {k} dollars each, {he} can get {q} {smalls}

= a + b, p / k; ; job: washing cars|walking dogs|raking leaves; other: mowing lawns|selling lemonade|shoveling snow
. {n} earned [${a}|{a} dollars] {job} and [${b}|{b} dollars] {other}
. {he} [spent|spends|used] [only ${k}|${k}|{k} dollars] a week
? how many weeks [will|did|would] the money last
> {n} earned {p} dollars in all
> at {k} dollars a week the money lasts {q} weeks

= s * k, p + c; ; item: notebook|pen|towel|plate|sandwich|movie ticket; one: bag|lamp|clock|radio|cake
. {n} bought {s} {items} for [${k}|{k} dollars] each
. {he} also bought a {one} for [${c}|{c} dollars]
? how [much|much money|many dollars] did {he} spend [in all|altogether|in total]
> the {items} cost {p} dollars
> with the {one} that is {q} dollars

= s * k, a - p; ; item: pie|shirt|ticket|book|plant|mug
. {n} [had|took] [${a}|{a} dollars] [to the store|to the fair|to the mall|with {him}]
. {he} bought {s} {items} that cost [${k}|{k} dollars] each
? how [much money|many dollars] did {he} have left
> the {items} cost {p} dollars
> that leaves {q} dollars

= a + b, p / k; ; item: tray|plate|chair|box|book|brick
. {n} was [helping to carry|clearing away|moving] {items} and could [carry|take] only {k} at a time
. there were {a} {items} in one room and {b} in [another|another room|the hall]
? how many trips did {he} [make|need]
> there were {p} {items} to carry
> at {k} a trip, {he} made {q} trips

= a + b, p / k; ; car: van|boat|cable car|bus|tent; trip: museum|zoo|lake|farm|aquarium|mountains
. {n}'s [class|club|school|team] is going on a trip to the {trip}
. {a} [students|children] and {b} [adults|teachers|parents] are going
. each {car} [holds|can hold|has room for] {k} people
? how many {cars} [do they need|will they need]
> in all {p} people are going
> with {k} people in each, they need {q} {cars}

= a - b, p / k; ; party: wedding|dinner|picnic|banquet|reunion
. {n} invited {a} [people|guests] to a {party}
. {b} of them [could not come|did not show up|stayed home]
. {k} guests sat at each table
? how many tables [were used|were needed|did the guests fill]
> {p} guests came
> with {k} at each table, they filled {q} tables

= s - t, p * k; ; snack: cupcake|slice of pizza|sandwich|juice box|cookie
. {n} [invited|asked] {s} friends to a [party|picnic|sleepover], but {t} of them could not come
. {he} wanted each [friend who came|guest] to get [exactly {k}|{k}] {snacks}
? how many {snacks} [should {he} buy|did {he} need|should {he} prepare] for the guests
> {p} friends came
> with {k} each, {n} needed {q} {snacks}

= s - t, p * k; ; job: paint|clean|tile|wallpaper; place: room|classroom|office|hallway
. [a worker|a crew|{n}] has to {job} {s} {places}
. {t} of the {places} are [already done|finished]
. each {place} takes {k} hours
? how many [more hours|hours] will the [rest|remaining {places}] take
> there are still {p} {places} to do
> at {k} hours each, they take {q} hours

= a - b, p + c; ; game: video|computer|board|card; unit: life|point|gem|star|token
. [halfway through|early in] a {game} game {n} had {a} {units}
. {he} lost {b} {units} [to a dragon|because of a mistake|by bad luck]
. {he} then won {c} {units} [in a bonus round|by luck|from another player]
? how many {units} [does {he} have now|did {he} have in the end|would {he} have]
> after the loss {n} had {p} {units}
> after the win {he} had {q} {units}

= s + t, p * k; ; find: treasure|coin|crystal|hidden key|mushroom; one: forest|cave|desert; two: castle|city|tower
. in a [treasure hunt|computer game] every {find} brings {k} points
. {n} picked up {s} {finds} in the {one} and {t} in the {two}
? how many points did [{he} get|that bring {him}]
> {n} picked up {p} {finds}
> at {k} points each, {he} got {q} points

= a - b, p / k; ; sport: basketball|dodgeball|handball|quiz
. {n}'s {sport} team scored {a} points
. {n} scored {b} of them and [each of the other players|every other player] scored {k} points
? how many other players were on the team
> the others scored {p} points
> at {k} points each, there were {q} other players

= a - b, p / k; ; bed: flower bed|garden|pot|planter
. {n} had {a} seeds
. {he} [planted|sowed] {b} of them in the [big field|greenhouse|backyard] and {k} seeds in each {bed}
. that used up all of the seeds
? how many {beds} did {he} have
> {p} seeds went into the {beds}
> at {k} seeds each, that makes {q} {beds}

= a - b, p + c; ; line: roller coaster|water slide|ticket booth|museum|ice cream stand
. {a} people were [waiting|standing] in line at the {line}
. {b} of them [gave up|left|went home]
. {c} [others|more people|new people] [joined the line|got in line]
? how many people [are in line now|were in line then|were then in line]
> after some left, the line had {p} people
> after others came, it had {q} people

= a - b, p / k; ; subject: math|history|science|spelling|reading
. {n} had {a} {subject} [problems|questions|exercises] to do
. {he} finished {b} of them [at school|on the bus|before dinner|in class]
. the [rest|others] are on {k} pages, with the same number on each page
? how many are on each page
> there were {p} problems left
> spread over {k} pages, each page has {q} problems

= a - b, p / k; ; subject: math|history|science|spelling|English
. {n} had {a} {subject} problems for homework
. {he} [did|finished|solved] {b} of them [at school|before dinner|on the bus|with a friend]
. {he} can [do|finish|solve] {k} [problems|of them] an hour
? how many hours will the [rest|others] take
> there were {p} problems left
> at {k} an hour, they take {q} hours

= s + t, p * k; ; one: math|science|history; two: reading|spelling|music; task: problem|question
. {n} [got|has to fill in|was given] {s} worksheets in {one} and {t} worksheets in {two}
. there are {k} {tasks} on [every|each] worksheet
? how many {tasks} [must {he} answer|does {he} have to answer|are there altogether]
> there are {p} worksheets
> with {k} on each, that is {q} {tasks}

= a - b, p / k; ; team: swim|chess|soccer|debate|track
. {a} children came to the first day of the {team} club
. {b} of them left [early|again], and the coach made {k} equal groups of the others
? how many children were in [a group|each of the groups]
> {p} children stayed
> in {k} groups, each group had {q} children

= a - b, p / k; ; pet: puppy|kitten|rabbit|hamster|parrot|canary|turtle
. [an animal shelter|a rescue home] looked after {a} {pets}
. [in one month|over the summer|last week] {b} of them found a new home
. the [rest|others] live in pens, {k} to a pen
? how many pens [do they live in|are taken|are in use]
> the shelter has {p} {pets} left
> with {k} to a pen, they live in {q} pens

= s + t, k * p; ; one: parrot|finch|rabbit|goldfinch|duck; two: canary|dove|hamster|parakeet|goose
. [a wildlife park|a farm|a zoo] has {k} [enclosures|huts]
. {s} {ones} and {t} {twos} live in each of them
? how many animals [live there|is that in all]
> {p} animals live together
> {k} times as many are {q} animals

= s + t, p * k; ; job: bakery|bookstore|gas station|library|car wash|garden center
. {n} [works|has a job] at a {job} and makes [${k}|{k} dollars] an hour
. {he} worked {s} hours {t1} and {t} hours {t2}
? how [much money|many dollars] did {he} [earn|make] [in all|altogether|in that time]
> {n} worked {p} hours
> at {k} dollars an hour, {he} made {q} dollars

= s + t, p * k; ; one: Ferris wheel|carousel|log ride; two: bumper cars|roller coaster|haunted train
. {n} went on the {one} {s} times and on the {two} {t} times
. {he} [had to hand over|handed over|gave] {k} tickets for every ride
? how many tickets [did {he} hand over|was that]
> {n} went on {p} rides
> at {k} tickets each, {he} handed over {q} tickets

= s - t, p * k; ; place: zoo|museum|pool|theater|ice rink
. a group of {s} people went to the {place}
. {t} of them were [children|members] and got in free, and everyone else paid [${k}|{k} dollars]
? how [much|much money|many dollars] did the group pay [|in all]
> {p} people had to pay
> at {k} dollars each, the group paid {q} dollars

= s - t, p * k; ; who: waiter|driver|guide|hairdresser|porter
. a {who} had {s} customers [one day|in the morning|on Friday]
. {t} of them left no tip, and each of the others left [${k}|{k} dollars]
? how [much|many dollars] did the {who} get in tips
> {p} customers left a tip
> at {k} dollars each, the tips were {q} dollars

= a + b, p - c; ; job: lawn mowing|dog walking|cake|bike repair|lemonade; part: supplies|tools|gas|flyers
. {n} started a {job} business
. {he} made [${a}|{a} dollars] {t1} and [${b}|{b} dollars] {t2}
. {he} had to spend [${c}|{c} dollars] on {part}
? how [much money|many dollars] did {he} have left [in the end|]
> {n} made {p} dollars
> after the costs {he} had {q} dollars

= a - b, p / k; flower; event: wedding|dance|party|concert
. {n} {gain} {a} {things} for a {event} to make bouquets with {k} {things} in each
. {b} of the {things} wilted
? how many bouquets could {he} still make
> {n} still had {p} {things}
> with {k} in each, they make {q} bouquets

= a - b, p / k; fruit; meal: pie|cake|jar of jam|fruit salad|bottle of juice; place: cafeteria|bakery|camp kitchen
. the {place} had {a} {things}
. [the cooks handed out {b} of them|{b} of them were eaten] at lunch and the rest were used for cooking
. {k} {things} are needed for each {meal}
? how many {meals} could [be made|they make]
> there were {p} {things} left
> at {k} for each, they make {q} {meals}

= a + b, p / k; ; stuff: paper|glass|metal|plastic
. {n} and {his} {rel} collected {stuff} for recycling, and for every {k} pounds they [got|earned] one point
. {n} collected {a} pounds and {his} {rel} collected {b} pounds
? how many points did they get
> they collected {p} pounds
> at {k} pounds for each point, they got {q} points

= a + b, p - c; fruit vegetable
. {n} and {his} {rel} [brought home|gathered] {things}
. {n} [carried|found] {a} and {his} {rel} [carried|found] {b}
. they could use just {c} of all these {things}
? how many {things} could they not use
> they had {p} {things}
> {c} could be used, so the others were {q} {things}

= a + b, p / k; ; item: photo|baseball card|sticker|recipe|stamp; book: album|scrapbook|binder
. every page of {n}'s {book} takes {k} {items}
. {he} has {a} {items} from last year and {b} from this year
? how many pages [can {he} fill|do they fill]
> {n} has {p} {items}
> with {k} to a page, they fill {q} pages

= a + b, p / k; toy book school clothing; place: shelf|rack|table
. [a|the] store had {a} {things} and [got|received|ordered] {b} more
. the [owner|manager|clerk] laid all of them out on {places}, {k} to a {place}
? how many {places} [were filled|did this take]
> the store had {p} {things}
> with {k} to a {place}, they filled {q} {places}

= a - b, p / k; toy book school clothing; place: shelf|rack|table
. [a|the] store had {a} {things}
. it sold {b} of them [during a sale|in one week|on Monday], and the others now fill {places}, {k} to a {place}
? how many {places} [do they fill|are filled]
> after the sale there were {p} {things}
> with {k} to a {place}, they fill {q} {places}

= a + b, p - c; ; one: music|text|game; two: video|picture|sound; device: computer|laptop|tablet|memory card
. {n}'s {device} held {a} {one} files and {b} {two} files
. {he} cleaned it up and [threw out|erased|removed] {c} files
? how many files [remain|does it hold now|are left on it]
> it held {p} files
> {c} were taken off, which leaves {q} files

= a - b, p + c; ; item: song|app|photo|video|e-mail|contact; device: phone|tablet|laptop|computer
. [{n} had {a} {items} on {his} {device}|there were {a} {items} on {n}'s {device}]
. {he} [deleted|removed|erased] {b} [of them|old {items}]
. {he} [added|saved] {c} new ones
? how many {items} [are on the {device} now|does {he} have now|were there in the end]
> after deleting {b}, {n} had {p} {items}
> after adding {c}, {he} had {q} {items}

= s + t, p * k; ; one: chair|lamp|desk; two: table|bookcase|bed frame
. {n} has to assemble {s} {ones} and {t} {twos} [|for {his} office|for the new house]
. every piece takes {him} {k} minutes
? how many minutes of work [is that|does {he} have]
> there are {p} pieces
> at {k} minutes each, they take {q} minutes

= s + t, k * p; ; one: scarf|pair of gloves|cap; two: coat|vest|pair of socks; bag: suitcase|trunk|closet
. there were {k} {bags} in {n}'s attic
. {he} found {s} {ones} and {t} {twos} in [every|each] {bag}
? how many pieces of clothing did {he} find [|in all]
> each {bag} held {p} pieces
> {k} {bags} held {q} pieces

= a + b, p / k; ; pic: picture|photo|video; one: animals|flowers|boats; two: mountains|friends|bridges
. on a trip {n} [took|made] {a} {pics} of {one} and {b} {pics} of {two}
. {k} albums got an equal share of [them|all the {pics}]
? how many {pics} went into [one album|each of the albums]
> there were {p} {pics}
> in {k} albums, each one had {q} {pics}

= a / k, p * s; fruit candy toy school treat
. {k} {things} cost [${a}|{a} dollars]
. {n} wants to buy {s} {things} at the same price
? how [much|many dollars] will {he} pay
> one costs {p} dollars
> {s} of them cost {q} dollars

= a / k, p * s; ; act: type|print|fold|read|stamp
. {n} can {act} {a} pages in {k} minutes
. {he} [always works|keeps working] at the same speed
? how many pages can {he} {act} in {s} minutes
> in one minute {n} does {p} pages
> in {s} minutes {he} does {q} pages

= a - b, p / k; ; item: booklet|picture book|magazine|storybook|comic book|report
. {n} is reading a {item} that has {a} pages
. {he} has read {b} pages [so far|already]
. {he} [reads|will read] {k} pages a day from now on
? how many [more days|days] will {he} need to finish it
> there are {p} pages left
> at {k} pages a day, {he} needs {q} days

= a - b, p / k; ; act: hike|bike ride|canoe trip|walk
. {n} planned a {act} of {a} miles
. {he} did {b} miles on the first day and shared the rest evenly among {k} more days
? how many miles did {he} do on each of those {k} days
> the other days covered {p} miles
> over {k} days, that is {q} miles

= s * k, a - p; ; item: bicycle|guitar|scooter|tent|drum|telescope
. {n} wants to buy a {item} that costs [${a}|{a} dollars]
. {he} [saved|put aside|earned] [${k}|{k} dollars] a week for {s} weeks
? how [much more money|many more dollars] does {he} need
> {n} has {p} dollars
> {he} still needs {q} dollars

= s * k, a - p; ; item: rope|ribbon|wire|board|string|hose
. {n} had a {item} that was {a} inches long
. {he} cut off {s} pieces of {k} inches each
? how many inches of {item} were left
> the pieces took {p} inches
> that leaves {q} inches

= a - b, p / k; ; tank: pool|tank|barrel|pond|bathtub
. a {tank} holds {a} gallons of water and already has {b} gallons in it
. a [hose|pump|pipe] adds {k} gallons [a|every|each] minute
? how many minutes [does it take|will it take] to fill the {tank}
> the {tank} needs {p} gallons more
> at {k} gallons a minute, it takes {q} minutes

= s * k, p - c; ; car: train|plane|ferry|theater|stadium; part: row|section|block
. a {car} has {s} {parts} with {k} seats in each
. {c} of the seats are taken
? how many seats are [still free|empty]
> the {car} has {p} seats
> {c} are taken, so the free ones are {q} seats

= s * k, p - c; ; bird: hen|duck|goose|quail|turkey
. {n} has {s} {birds}, and each of them laid {k} eggs [this week|this month]
. [{he} sold {c} of the eggs|{he} used {c} of the eggs for baking|{c} of the eggs broke]
? how many eggs [are left|does {he} still have]
> the {birds} laid {p} eggs
> without the {c}, that leaves {q} eggs

= s * k, p + c; ; item: chair|stool|folding chair; event: concert|play|meeting|wedding
. [{n} set up|the helpers set up|the school set up] {s} rows of {k} {items} for a {event}
. [another {c} {items} were placed at the back|{c} more {items} were added later]
? how many {items} [were there in all|were set up altogether]
> the rows had {p} {items}
> with the extra ones there were {q} {items}

= a + b, p - c; ; group: school band|art class|summer camp|choir|fourth grade|science club
. {a} boys and {b} girls [are in|belong to] the {group}
. [today|on Monday|this morning] {c} of them were [sick|absent|away]
? how many children were [there|present]
> the {group} has {p} children
> {c} were missing, so that leaves {q} children

= a + b, p - c; ; bird: sparrow|crow|pigeon|gull|robin; spot: fence|roof|wire|branch
. {a} {birds} were sitting on a {spot}
. {b} more {birds} [joined them|came to the {spot}]
. {c} of the {birds} [then |]flew away
? how many {birds} [were left|stayed] on the {spot}
> first there were {p} {birds}
> after some flew away, there were {q} {birds}

= s * k, p - c; school toy fruit treat; other: ball|cap|flag|whistle
. {n} has {s} {boxes} with {k} {things} in each
. {he} also has {c} {others}
? how many more {things} than {others} does {he} have
> {n} has {p} {things}
> there are {c} {others}, so the difference is {q}

= a - b, p - c; ; item: stamp|card|coin|shell
. {n} has {a} {items}
. {n} has {b} more than {o}, and {o} has {c} more than {o2}
? how many {items} does {o2} have
> {o} has {p} {items}
> {o2} has {q} {items}

= a - b, p / k; ; place: hotel|hospital|camp
. the {place} had {a} pieces of laundry
. {b} of them went into the big washing machine and the others evenly into {k} small machines
? how many pieces went into [a|each] small machine
> the others were {p} pieces
> in {k} small machines, each had {q} pieces

= s + t, p * k; ; who: friend|camper|child|neighbor; unit: candle|song|snack|ticket|marble
. {s} {whos} sat around a [table|fire] when {t} more [came|arrived]
. every one of them had brought {k} {units}
? how many {units} did they bring [in all|altogether]
> there were {p} {whos}
> with {k} each, they brought {q} {units}

= s + t, p * k; ; item: concert ticket|movie ticket|baseball cap|picture book|train ticket
. {n} [bought|ordered|got] {s} {items} for {his} family and {t} for {his} [friends|neighbors|teachers]
. {he} paid [${k}|{k} dollars] for each
? how [much|many dollars] did all of them cost
> {n} paid for {p} {items}
> at {k} dollars each, they cost {q} dollars

= a - b, p + c; ; place: library|school|art museum|toy museum; item: globe|painting|computer|map
. the {place} had {a} {items}
. {b} of them were [broken|too old|damaged] and were [thrown out|taken away]
. [the {place}|it] [then|later] [bought|got|received] {c} new ones
? how many {items} does the {place} have now
> after the old ones were gone there were {p} {items}
> with the new ones there are {q} {items}

= a - b, p + c; ; item: jar|pot|barrel|bucket; stuff: water|paint|juice|soup
. a {item} held {a} cups of {stuff}
. {n} [poured out|used|took out] {b} cups
. {he} [then|later] [added|poured in] {c} cups
? how many cups of {stuff} were in the {item} then
> after taking some out, there were {p} cups
> after adding more, there were {q} cups

= a - b, p + c; ; bus: bus|train|ferry|tram
. a {bus} left the station with {a} passengers
. at the first stop {b} passengers got off and {c} got on
? how many passengers [were on the {bus} after that|did it carry then]
> after {b} got off, there were {p} passengers
> after {c} got on, there were {q} passengers

= a - b, p + c, q / k; treat candy fruit vegetable toy school book
. {n} had {a} {things}
. {he} {lose} {b} of them
. {he} then {gain} {c} more and put everything into {boxes} of {k} {things} each
? how many {boxes} did {he} [fill|need]
> after {he} {lose} {b}, {he} had {p} {things}
> after adding {c}, {he} had {q} {things}
> with {k} in each, they filled {r} {boxes}

= s * k, t * l, p + q; treat candy fruit toy school
. {n} [has|bought|filled] {s} {boxes} with {k} {things} in each
. [{he} also has|there are also] {t} larger {boxes} with {l} {things} in each
? how many {things} [are there in all|is that altogether]
> the first {boxes} hold {p} {things}
> the larger ones hold {q} {things}
> together that is {r} {things}

= s * k, t * l, p - q; toy school fruit
. {n} has {s} {boxes} of {k} {things} each
. {o} has {t} {boxes} of {l} {things} each
? how many more {things} does {n} have than {o}
> {n} has {p} {things}
> {o} has {q} {things}
> the difference is {r} {things}

= s * k, t * l, p + q; ; one: sandwich|notebook|shirt|rose; two: drink|marker|belt|tulip
. {n} bought {s} {ones} at [${k}|{k} dollars] each
. {he} also bought {t} {twos} at [${l}|{l} dollars] each
? how [much money|many dollars] did {he} spend [in all|altogether]
> the {ones} cost {p} dollars
> the {twos} cost {q} dollars
> in all {n} spent {r} dollars

= s * k, p + c, a - q; ; item: plant|mug|poster|puzzle; one: vase|calendar|clock|scarf
. {n} had [${a}|{a} dollars]
. {he} bought {s} {items} for [${k}|{k} dollars] each and a {one} for [${c}|{c} dollars]
? how [much money|many dollars] did {he} have left
> the {items} cost {p} dollars
> with the {one} {he} spent {q} dollars
> that leaves {r} dollars

= a + b, p - c, q / k; treat fruit vegetable flower toy school
. {n} {gain} {a} {x1} {things} and {b} {x2} {things}
. {he} {lose} {c} of them
. the rest were [shared|split] equally between {k} {boxes}
? how many {things} were in each {box}
> first there were {p} {things}
> {he} {lose} {c}, so that left {q} {things}
> in {k} {boxes}, each one had {r} {things}

= a - b, p - c, q / k; treat candy fruit toy flower
. {n} had {a} {things}
. {he} {lose} {b} {t1} and {c} {t2}
. {he} shared the rest equally among {k} [friends|neighbors|cousins]
? how many {things} did each of [them|the {k}] get
> after the first {b} there were {p} {things}
> after the other {c} there were {q} {things}
> shared among {k}, each one got {r} {things}

= s - t, p * k, q + c; ; item: candle|magnet|scarf|painting|bracelet
. {n} made {s} {items}, kept {t} of them and sold the others for [${k}|{k} dollars] each
. {he} already had [${c}|{c} dollars] in {his} [purse|piggy bank|wallet]
? how [much money|many dollars] does {he} have now
> {n} sold {p} {items}
> at {k} dollars each, {he} earned {q} dollars
> with the {c} from before {he} has {r} dollars

= s + t, p * k, q - c; ; job: bakery|library|farm|toy store; item: pair of shoes|jacket|game|book
. {n} worked {s} hours {t1} and {t} hours {t2} at a {job}
. {he} [got|earned] [${k}|{k} dollars] an hour and then spent [${c}|{c} dollars] on a {item}
? how [much money|many dollars] did {he} have left from {his} pay
> {n} worked {p} hours
> at {k} dollars an hour, {he} earned {q} dollars
> after paying for the {item} {he} had {r} dollars

= a + b, p / k, q - c; candy treat fruit toy
. {n} and {o} put together their {things}, {a} from {n} and {b} from {o}
. the {things} were shared equally among {k} children, and {n} was one of the children
. {n} {lose} {c} of {his} share
? how many {things} did {n} have left
> together there were {p} {things}
> each child got {q} {things}
> after {c} were gone, {n} had {r} {things}

= a + b, a + p, q - c; toy candy fruit school book
. {n} {gain} {a} {things} and {o} {gain} {b} more than {n}
. together they gave {c} of their {things} to [a friend|a school|the neighbors]
? how many {things} do they have left together
> {o} had {p} {things}
> together they had {q} {things}
> after giving away {c} they had {r} {things}

= s * k, p + c, q / l; treat candy fruit toy school
. {n} had {s} {boxes} of {k} {things} and {c} loose {things}
. {he} [took all of them and made|turned all of them into] gift bags with {l} {things} in each
? how many gift bags did {he} make
> the {boxes} held {p} {things}
> with the loose ones there were {q} {things}
> with {l} in each, that makes {r} gift bags

= s * k, p - c, q / l; treat fruit vegetable
. {n} {gain} {s} {boxes} of {things}, with {k} in each {box}
. {he} {lose} {c} of them
. the rest were shared equally by {l} [families|children|neighbors]
? how many {things} did each of the {l} get
> {s} {boxes} of {k} make {p} {things}
> {he} {lose} {c}, which left {q} {things}
> shared by {l}, each got {r} {things}

= a / k, p * s, q + c; school toy treat; one: bag|card|ribbon|box
. {k} {things} cost [${a}|{a} dollars] and a gift {one} costs [${c}|{c} dollars]
. {n} bought {s} {things} and one gift {one}
? how [much|many dollars] did {he} pay
> one of the {things} costs {p} dollars
> {s} of them cost {q} dollars
> with the gift {one} that is {r} dollars

= a - b, p + c, q - d; ; game: video|card|board|quiz; unit: point|coin|star|gem
. {n} had {a} {units} in a {game} game
. {he} lost {b} {units} and then won {c} {units}
. {d} {units} were taken from {him} at the end
? how many {units} [did {n} keep|does {n} have now|were left]
> after the first loss {n} had {p} {units}
> after the win {he} had {q} {units}
> at the end {he} had {r} {units}

= a + b, p - c, q - d; ; one: game|hat|ball; two: book|snack|pen
. on {his} birthday {n} got ${a} from {his} [aunt|mother|grandfather] and ${b} from {his} [uncle|father|godmother]
. {he} bought a {one} for [${c}|{c} dollars] and a {two} for [${d}|{d} dollars]
? how [much money|many dollars] did {he} have left
> {n} got {p} dollars
> after buying the {one} {he} had {q} dollars
> after buying the {two} {he} had {r} dollars

= a - b, p + c, q - d; ; bus: bus|train|ferry|tram
. {a} people were on a {bus}
. at the first stop {b} people got off and {c} people got on
. at the second stop {d} people got off
? how many people were [still|left] on the {bus}
> after {b} got off, there were {p} people
> after {c} got on, there were {q} people
> after the second stop there were {r} people

= s - t, p - u, q * k; treat candy fruit school toy
. {n} had {s} {boxes} of {things}, and each {box} held {k} {things}
. {he} gave {t} {boxes} to {o} and {u} {boxes} to {his} {rel}
? how many {things} did {n} have left
> after the first gift {n} had {p} {boxes}
> after the second gift {n} had {q} {boxes}
> with {k} in each, that is {r} {things}

= s + t, p + u, q * k; ; find: gem|star|treasure chest|trophy|puzzle
. in a game every {find} is worth {k} points
. {n} got {s} {finds} on the first level, {t} on the second and {u} on the third
? how many points did {he} [get|score] [in all|altogether]
> on the first two levels {n} got {p} {finds}
> with the third level that is {q} {finds}
> at {k} points each, {he} scored {r} points

= s + t, k * p, q + c; ; hall: restaurant|dining hall|cafeteria
. there were {k} full tables in a {hall}, with {s} adults and {t} children at each table
. {c} more people sat at the bar
? how many people were in the {hall}
> each table had {p} people
> all the tables had {q} people
> with the people at the bar there were {r} people

= s * k, p + b, a - q; ; item: storybook|booklet|magazine|picture book
. {n} has a {item} with {a} pages
. {he} read {k} pages a day for {s} days and then {b} pages in one evening
? how many pages [are left|does {he} still have to read]
> in the {s} days {he} read {p} pages
> with the evening {he} read {q} pages
> that leaves {r} pages

= a - b, p / k, q + c; treat fruit toy school book
. {n} had {a} {things}, kept {b} and shared the others equally among {k} friends
. {o}, one of those friends, already had {c} {things}
? how many {things} does {o} have now
> {n} shared {p} {things}
> each friend got {q} {things}
> with the {c} from before {o} has {r} {things}

= s * k, p + c, q / m; ; meal: pizza|burger|noodle bowl|taco plate; extra: cake|pie|salad
. {m} friends bought {s} {meals} for [${k}|{k} dollars] each and a {extra} for [${c}|{c} dollars]
. they split the [bill|cost] equally
? how [much|many dollars] did each of them pay
> the {meals} cost {p} dollars
> with the {extra} that is {q} dollars
> split among {m} friends, each paid {r} dollars

= s * k, p - c, q / l; ; bird: hen|duck|quail
. {n} has {s} {birds}, and each of them laid {k} eggs
. {c} of the eggs broke
. {he} put the others in cartons of {l}
? how many cartons did {he} fill
> the {birds} laid {p} eggs
> without the broken ones there were {q} eggs
> in cartons of {l}, they fill {r} cartons

= a - b, p / k, q * s; ; item: soil|sand|gravel|bark; place: garden|yard|park|playground
. {n} had {a} bags of {item} and gave {b} of the bags to {his} {rel}
. {he} brought the rest to {k} {places}, the same number of bags to each
. every bag weighs {s} pounds
? how many pounds of {item} did each {place} get
> there were {p} bags to bring
> each {place} got {q} bags
> at {s} pounds each, that is {r} pounds
"""


_Equations = tuple[tuple[str, str, str, str], ...]  # (result, left, operation, right)
_Sizes = tuple[int, int, int]  # how often results may go up to 100, 150 and 500
_REAL_SIZES: _Sizes = (80, 15, 5)
_LARGER_SIZES: _Sizes = (40, 30, 30)


class _Story(NamedTuple):
    equations: _Equations
    kinds: tuple[str, ...]
    words: tuple[tuple[str, tuple[str, ...]], ...]
    facts: tuple[str, ...]
    question: str
    reasoning: tuple[str, ...]


def choices_of(words: list[str]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """["place: zoo|park"] -> (("place", ("zoo", "park")),)."""
    return tuple((name, tuple(choices.split("|"))) for name, choices in (word.split(": ") for word in words if word))


def _parse(block: str) -> _Story:
    lines: dict[str, list[str]] = {"=": [], ".": [], "?": [], ">": []}
    for line in block.splitlines():
        lines[line[0]].append(line[2:])
    equations, kinds, *words = (part.strip() for part in lines["="][0].split(";"))
    return _Story(
        tuple((result, *equation.split()) for result, equation in zip("pqr", equations.split(", "), strict=False)),
        tuple(kinds.split()),
        choices_of(words),
        tuple(lines["."]),
        lines["?"][0],
        tuple(lines[">"]),
    )


_Family = TypeVar("_Family")
STORIES = tuple(map(_parse, _STORIES.strip().split("\n\n")))

_IRREGULAR = {"child": "children", "goose": "geese", "life": "lives", "mango": "mangoes", "person": "people"}
_IRREGULAR |= {"potato": "potatoes", "scarf": "scarves", "shelf": "shelves", "tomato": "tomatoes"}
_UNITS = {f"{unit}s": unit for unit in "bag cup dollar egg file page passenger piece point problem seat".split()}
_UNITS |= {"children": "child", "inches": "inch", "people": "person"}
_CHOICE = re.compile(r"\[([^][]*)\]")
_SENTENCE_START = re.compile(r"(?:^|(?<=[.?!] ))[a-z]")
_ARTICLE = re.compile(r"\b([Aa])(?= [aeio])")


def plural(noun: str) -> str:
    """The plural of a noun: "box" -> "boxes", "pair of shoes" -> "pairs of shoes"."""
    head, of, rest = noun.partition(" of ")
    if head in _IRREGULAR:
        head = _IRREGULAR[head]
    elif re.search(r"[^aeiou]y$", head):
        head = f"{head[:-1]}ies"
    else:
        head += "es" if re.search(r"(s|x|ch|sh)$", head) else "s"
    return head + of + rest


def expand(text: str, rng: random.Random) -> str:
    """Replaces every [this|that], the innermost first, by one of its choices."""
    while "[" in text:
        text = _CHOICE.sub(lambda match: rng.choice(match[1].split("|")), text)
    return text


def polish(text: str) -> str:
    """Sets "an" for "a" where a vowel follows, drops blanks before marks and capitalizes the sentences."""
    text = _ARTICLE.sub(r"\1n", re.sub(r" +(?=[ .?,])", "", text))
    return _SENTENCE_START.sub(lambda match: match[0].upper(), text)


def _numbers(equations: _Equations, rng: random.Random, sizes: _Sizes = _REAL_SIZES) -> dict[str, int]:
    """Draws numbers until every division is exact and every result fits; only the last result may be 1."""
    limit = rng.choices((100, 150, 500), sizes)[0]
    large = rng.choice((20, 50, 99)) if limit <= 150 else 300
    small = 15 if limit <= 150 else 30
    ranges = dict.fromkeys("abcd", (2, large)) | dict.fromkeys("stu", (2, small)) | dict.fromkeys("kl", (2, 10))
    ranges["m"] = (3, 10)
    names = [name for _, left, _, right in equations for name in (left, right) if name in ranges]
    while True:
        values = {name: rng.randint(*ranges[name]) for name in names}
        for result, left, operation, right in equations:
            if operation == "/" and (values[left] % values[right] or values[left] == values[right]):
                break
            values[result] = value = OPERATIONS[operation](values[left], values[right])
            if not (1 if result == equations[-1][0] else 2) <= value <= limit:
                break
            # As in the real sets, most quotients come from the multiplication table.
            if operation == "/" and value > 12 and rng.random() < 0.85:
                break
        else:
            return values


def _written_out(equations: _Equations, numbers: dict[str, int]) -> dict[str, str]:
    """Each step written out, "57 - 19 = 38", by the name of its result."""
    return {
        result: f"{numbers[left]} {operation} {numbers[right]} = {numbers[result]}"
        for result, left, operation, right in equations
    }


def tell(facts: list[str], aside: list[str], question: str, rng: random.Random) -> str:
    """
    Puts the clauses together: as sentences, some joined by "and", the last perhaps as the question's condition. What is
    said by the way stands alone, after the first sentence.
    """
    sentences, conditions = facts[:1], []
    rest = facts[1:]
    if rest and rng.random() < 0.5:
        conditions.append(rest.pop())
        if rest and len(rest[-1]) + len(conditions[0]) < 90 and rng.random() < 0.3:
            conditions.insert(0, rest.pop())
    for fact in rest:
        if len(sentences[-1]) + len(fact) < 80 and rng.random() < 0.3:
            sentences[-1] += f", and {fact}"
        else:
            sentences.append(fact)
    if conditions:
        question = f"if {' and '.join(conditions)}, {question}"
    return ". ".join([sentences[0], *aside, *sentences[1:], question]) + "?"


def vocabulary(
    kinds: tuple[str, ...], words: tuple[tuple[str, tuple[str, ...]], ...], rng: random.Random
) -> dict[str, str | int]:
    """Draws the words of a story, with their plurals: a kind of thing, one of each family's own `words`, people."""
    words = {name: rng.choice(choices) for name, choices in words}
    if kinds:
        kind = KINDS[rng.choice(kinds)]
        words |= {"thing": rng.choice(kind.things), "box": rng.choice(kind.containers)}
        words |= {"gain": rng.choice(kind.gain), "lose": rng.choice(kind.lose)}
        words["x1"], words["x2"] = rng.sample(rng.choice(kind.pairs).split(), 2)
    plurals = {"boxes" if name == "box" else f"{name}s": plural(word) for name, word in words.items()}
    female = rng.random() < 0.5
    hero = rng.choice(FEMALE_NAMES if female else MALE_NAMES)
    others = rng.sample([name for name in (*FEMALE_NAMES, *MALE_NAMES) if name != hero], 2)
    pronouns = ("she", "her", "her") if female else ("he", "him", "his")
    slots = words | plurals | dict(zip(("he", "him", "his"), pronouns, strict=True))
    slots |= {"n": hero, "o": others[0], "o2": others[1], "rel": rng.choice(RELATIVES), "z": rng.randint(3, 14)}
    slots["t1"], slots["t2"] = rng.choice(TIMES)
    return slots


def _arithmetic_story(story: _Story, rng: random.Random, sizes: _Sizes = _REAL_SIZES) -> dict[str, str]:
    numbers = _numbers(story.equations, rng, sizes)
    slots = numbers | vocabulary(story.kinds, story.words, rng)
    facts = [expand(fact, rng) for fact in story.facts]
    aside = [rng.choice(DISTRACTORS)] if "{n}" in facts[0] and rng.random() < 0.07 else []
    facts, aside = ([text.format_map(slots) for text in texts] for texts in (facts, aside))
    question = tell(facts, aside, expand(story.question, rng).format_map(slots), rng)

    equations = _written_out(story.equations, numbers)
    answer = str(numbers[story.equations[-1][0]])
    reasoning = ". ".join(expand(sentence, rng).format_map(slots | equations) for sentence in story.reasoning)
    if answer == "1":
        singulars = _UNITS | {slots[f"{name}s"]: word for name, word in slots.items() if f"{name}s" in slots}
        reasoning = re.sub(r"(?<== 1 )[A-Za-z -]+", lambda match: singulars.get(match[0], match[0]), reasoning)
    return {
        "question": polish(question),
        "reasoning": polish(f"{reasoning}. The answer is {answer}."),
        "condensed_reasoning": ", ".join(equations.values()),
        "answer": answer,
    }


_WORDINGS = {"+": "[+|plus|and]", "-": "[-|minus|less|without]"}
_WORDINGS |= {"*": "[*|times|groups of]", "/": "[/|divided by|shared among]"}


def _arithmetic_expression(equations: _Equations, numbers: dict[str, int], rng: random.Random) -> dict[str, str]:
    """Arithmetic without a story: "(57 - 19) plus 38", or step by step, "57 less 19, then that + 38"."""
    nested = rng.random() < 0.5
    texts = {name: str(value) for name, value in numbers.items()}
    steps = []
    for i, (result, left, operation, right) in enumerate(equations):
        steps.append(f"{texts[left]} {expand(_WORDINGS[operation], rng)} {texts[right]}")
        texts[result] = f"({steps[-1]})" if nested else "that"
        if i and not nested:
            texts[equations[i - 1][0]] = "the first"
    text = steps[-1] if nested else ", then ".join(steps)
    written = _written_out(equations, numbers)
    return {
        "question": rng.choice(("What is {}?", "How much is {}?", "{} = ?", "{}")).format(text),
        "reasoning": f"{'. '.join(written.values())}. The answer is {numbers[equations[-1][0]]}.",
        "condensed_reasoning": ", ".join(written.values()),
        "answer": str(numbers[equations[-1][0]]),
    }


def _drill(steps: int, rng: random.Random) -> _Equations:
    """Any chain of operations: each step takes the result before it, or the last one joins two separate results."""
    large, small, factors = iter("abcd"), iter("stu"), iter("klm")
    given: list[str] = []

    def new(names: Iterator[str]) -> str:
        given.append(next(names))
        return given[-1]

    equations: list[tuple[str, str, str, str]] = []
    separate = steps == 3 and rng.random() < 0.2
    for i, result in enumerate("pqr"[:steps]):
        # Of small numbers, a third division would leave nothing.
        divided = [step[2] for step in equations] == ["/", "/"]
        operation = rng.choices("+-*/", (3, 3, 3, 0 if divided else 2))[0]
        if i == 0 or (separate and i == 1):
            left = new(small if operation == "*" else large)
            right = new(factors if operation in "*/" else large)
        elif separate or (i == 2 and rng.random() < 0.15):
            operation = rng.choice("+-") if separate else "+"
            left, right = "pq"  # in the order in which they are written out
        else:
            # Some numbers are used twice; not in a difference, which might then be out of reach whatever the numbers.
            again = operation in "+*" and rng.random() < 0.15
            left, right = "pqr"[i - 1], rng.choice(given) if again else new(factors if operation in "*/" else large)
            if operation != "/" and rng.random() < 0.4:
                left, right = right, left
        equations.append((result, left, operation, right))
    return tuple(equations)


_ONSETS = "b c d f g h j k l m n p r s t v w y z br ch cl dr fr gl gr kr ph qu sh st th tr zh".split()
_VOWELS = "a e i o u a e i o ai au ea ee ei ia ie io oa ou ya".split()
_CODAS = "l m n r s t sh th ck nd nn rd rt ss x".split()
_SUFFIXES = "ann bella beth boy dina ette han ina isha jo lee lyn man marie ne rose son ton vin ya".split()
_PLAIN_NAMES = tuple(name.lower() for name in (*FEMALE_NAMES, *MALE_NAMES))


def _invented_name(rng: random.Random) -> str:
    """A lower-case first name: a common one, one with a suffix, or made of syllables; now and then a double name."""
    form = rng.random()
    if form < 0.2:
        name = rng.choice(_PLAIN_NAMES)
    elif form < 0.4:
        name = rng.choice(_PLAIN_NAMES) + rng.choice(_SUFFIXES)
    else:
        syllables = rng.choices((1, 2, 3), (10, 60, 30))[0]
        name = "" if rng.random() < 0.8 else rng.choice("aeiou")
        for _ in range(syllables):
            name += rng.choice(_ONSETS) + rng.choice(_VOWELS)
            if rng.random() < 0.25:
                name += rng.choice(_CODAS)
        if syllables == 1 or rng.random() < 0.3:
            name += rng.choice(_CODAS)
    if rng.random() < 0.04:
        name += f"-{rng.choice(_PLAIN_NAMES)}"
    return name


def _coin_flip(people: int, rng: random.Random) -> dict[str, str]:
    names: list[str] = []
    while len(names) < people:
        name = _invented_name(rng)
        if name not in names:
            names.append(name)
    heads = True
    told, reasoning, condensed = [], ["The coin starts heads up."], ["heads"]
    for name in names:
        flips = rng.random() < 0.5
        heads ^= flips
        side = "heads" if heads else "tails"
        told.append(f"{name} {'flips' if flips else 'does not flip'} the coin.")
        reasoning.append(f"{name} {'flips it, so it is' if flips else 'does not, so it stays'} {side} up.")
        condensed.append(f"{name} {'flips' if flips else 'does not'}: {side}")
    answer = "yes" if heads else "no"
    reasoning.append(f"In the end the coin is {side} up, so the answer is {answer}.")
    return {
        "question": f"Q: A coin is heads up. {' '.join(told)}  Is the coin still heads up?",
        "reasoning": " ".join(reasoning),
        "condensed_reasoning": f"{', '.join(condensed)}, so {answer}",
        "answer": answer,
    }


def in_eval(question: str) -> bool:
    """Whether a question belongs to the split "eval"."""
    return int.from_bytes(hashlib.sha256(question.encode()).digest(), "big") % 10 == 0


def draw(make: Callable[[], dict[str, str]], num_samples: int, split: str | None = None) -> Iterator[dict[str, str]]:
    """Calls `make` until it has given `num_samples` different questions, of one split where that is named."""
    if split not in (None, *SPLITS):
        raise ValueError(f"split is {split!r}; known splits: {', '.join(SPLITS)}")
    seen: set[str] = set()
    misses = 0
    while len(seen) < num_samples:
        problem = make()
        if problem["question"] in seen or (split and in_eval(problem["question"]) != (split == "eval")):
            misses += 1
            if misses == 100_000:
                raise ValueError(f"found only {len(seen)} different problems; num_samples={num_samples} is too many")
            continue
        misses = 0
        seen.add(problem["question"])
        yield problem


def of_length(families: Iterable[_Family], steps: tuple[int, int]) -> list[_Family]:
    """Those families of problems whose number of equations lies within `steps`, both ends included."""
    low, high = steps
    if not 1 <= low <= high <= 3:
        raise ValueError(f"steps is {steps}; give two whole numbers with 1 <= first <= second <= 3")
    return [family for family in families if low <= len(family.equations) <= high]


def arithmetic_stories(
    num_samples: int, seed: int = 0, steps: tuple[int, int] = (1, 3), split: str = "train"
) -> Iterator[dict[str, str]]:
    """Word problems in the manner of MultiArith, each of a family drawn evenly from those of the wanted length.

    Args:
        num_samples: how many to draw; no question comes twice in one draw.
        seed: the seed of the draw.
        steps: the smallest and the largest number of equations, both included, within 1 to 3.
        split: "train" or "eval"; the two never share a question.

    Yields:
        question, reasoning (sentences with the equations), condensed_reasoning ("11 - 9 = 2, 2 + 8 = 10") and answer
        (the last result). Every number is a positive integer.

    Raises:
        ValueError: for an unknown split, steps outside 1 to 3, or more samples than there are questions.
    """
    rng = random.Random(seed)
    families = of_length(STORIES, steps)
    yield from draw(lambda: _arithmetic_story(rng.choice(families), rng), num_samples, split)


def arithmetic_shapes(
    num_samples: int, seed: int = 0, steps: tuple[int, int] = (1, 3), split: str = "train"
) -> Iterator[dict[str, str]]:
    """The stories again, each shape of arithmetic equally often, however few tell it, and with larger numbers.

    A shape is the equations with their operands: 17 families divide a difference, most shapes have a single one.
    Arguments, columns and errors as for [`arithmetic_stories`].
    """
    rng = random.Random(seed)
    shapes: dict[_Equations, list[_Story]] = {}
    for story in of_length(STORIES, steps):
        shapes.setdefault(story.equations, []).append(story)
    told = list(shapes.values())
    yield from draw(lambda: _arithmetic_story(rng.choice(rng.choice(told)), rng, _LARGER_SIZES), num_samples, split)


def arithmetic_expressions(
    num_samples: int, seed: int = 0, steps: tuple[int, int] = (1, 3), split: str = "train"
) -> Iterator[dict[str, str]]:
    """The arithmetic of the stories without words around it, "(57 - 19) plus 38": the same practice for less compute.

    A family of stories lends its equations and the size of its numbers. Families of more steps, and those that add to a
    result or subtract from one, come more often, since these are the hardest to learn. Arguments, columns and errors as
    for [`arithmetic_stories`].
    """
    rng = random.Random(seed)
    families = of_length(STORIES, steps)
    weights = [
        len(story.equations) + 3 * sum(operation in "+-" for _, _, operation, _ in story.equations[1:])
        for story in families
    ]

    def make() -> dict[str, str]:
        equations = rng.choices(families, weights)[0].equations
        return _arithmetic_expression(equations, _numbers(equations, rng), rng)

    yield from draw(make, num_samples, split)


def arithmetic_drills(
    num_samples: int, seed: int = 0, steps: tuple[int, int] = (1, 3), split: str = "train"
) -> Iterator[dict[str, str]]:
    """Bare arithmetic of any shape, not only that of the stories, with larger numbers: practice for what is rare there.

    Operations, their order and what they take are drawn freely; problems of more steps come more often. Arguments,
    columns and errors as for [`arithmetic_stories`].
    """
    rng = random.Random(seed)
    of_length(STORIES, steps)  # raises for impossible ones
    lengths = range(steps[0], steps[1] + 1)

    def make() -> dict[str, str]:
        equations = _drill(rng.choices(lengths, lengths)[0], rng)
        return _arithmetic_expression(equations, _numbers(equations, rng, _LARGER_SIZES), rng)

    yield from draw(make, num_samples, split)


def coin_flips(
    num_samples: int, seed: int = 0, people: tuple[int, int] = (1, 6), split: str = "train"
) -> Iterator[dict[str, str]]:
    """Coin flip problems in the wording of the coin flip set of "Chain-of-Thought Prompting" (arXiv 2201.11903).

    Args:
        num_samples: how many to draw; no question comes twice in one draw.
        seed: the seed of the draw.
        people: the smallest and the largest number of people, both included; drawn evenly. Each one flips the coin
            with probability 1/2, so that "yes" and "no" are equally likely for every number of people.
        split: "train" or "eval"; the two never share a question.

    Yields:
        question, reasoning, condensed_reasoning and answer ("yes" or "no").

    Raises:
        ValueError: for an unknown split, fewer than one person, or more samples than there are questions.
    """
    low, high = people
    if not 1 <= low <= high:
        raise ValueError(f"people is {people}; give two whole numbers with 1 <= first <= second")
    rng = random.Random(seed)
    yield from draw(lambda: _coin_flip(rng.randint(low, high), rng), num_samples, split)
