"""Arithmetic stories in the manner of SVAMP: of all that is told, the question asks for one thing or another.

A scene tells more than any of its questions needs, so that the numbers that matter must be chosen by reading. SVAMP
(Patel et al., 2021, arXiv 2103.07191) varies its problems in the same way; no sentence is taken from it.
"""

import random
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from semcot.synthetic import OPERATIONS, choices_of, draw, expand, of_length, polish, tell, vocabulary

# A block is one scene:
#   :  the kinds of thing it may be about; words drawn once for the whole scene (name: this|that)
#   .  a fact     ~  a fact that is told now and then, and always where the question needs one of its numbers
#   !  what must hold of numbers that are told: each difference at least 1, each quotient whole; from left to right
#   =  the equations, then the question; one line for each variation
# Numbers: a b c d e f large, s t u small, k l m factors. Results p, q, r in their order. {n} {o} {o2} are people, {he}
# {him} {his} is {n}; {x1} {x2} two sorts of {things}. [this|that] is a free choice.
_SCENES = """
: treat candy fruit vegetable toy school
. {n} had {a} {x1} {things} and {b} {x2} {things}
. {he} [used up|gave away|sold|lost] {c} {x1} {things} and {d} {x2} [{things}|ones]
! a - c, b - d
= a - c ? how many {x1} {things} [did {he} have left|does {he} still have|were left]
= b - d ? how many {x2} {things} [did {he} have left|does {he} still have|were left]
= a + b ? how many {things} did {he} have [at first|in the beginning|to start with]
= c + d ? how many {things} [are gone now|did {he} part with|was that in all]
= a - b ? how many more {x1} {things} than {x2} {things} did {he} have at first
= b - a ? how many more {x2} {things} than {x1} {things} did {he} have at first
= c - d ? how many more {x1} {things} than {x2} {things} [did {he} part with|are gone now]
= d - c ? how many more {x2} {things} than {x1} {things} [did {he} part with|are gone now]
= a - c, b - d, p - q ? how many more {x1} {things} than {x2} {things} [did {he} have left|does {he} have now]
= a - c, b - d, p + q ? how many {things} [did {he} have left|does {he} have now] in all

: toy candy fruit book school
. {n} has {a} {things} and {o} has {b} {things}
~ {o2} has {c} {things}
! a - b
= a - b ? how many more {things} does {n} have than {o}
= a - b ? how many fewer {things} does {o} have than {n}
= a + b ? how many {things} do {n} and {o} have [together|in all]
= b + c ? how many {things} do {o} and {o2} have [together|in all|altogether]
= a + c ? how many {things} do {n} and {o2} have [together|in all|altogether]
= c - a ? how many more {things} does {o2} have than {n}
= a - c ? how many fewer {things} does {o2} have than {n}
= a + b, p + c ? how many {things} do the three of them have [together|in all|altogether]
= a + b, p - c ? how many more {things} do {n} and {o} have together than {o2}

: toy candy fruit book
. {o} has {a} fewer {things} than {n}
. {n} has {b} [more {things} than|{things} more than] {o2}
! c - a, c - b, d + a - b, e + b - a
= c - a ? if {n} has {c} {things}, how many {things} does {o} have
= c - b ? if {n} has {c} {things}, how many {things} does {o2} have
= d + a ? if {o} has {d} {things}, how many {things} does {n} have
= e + b ? if {o2} has {e} {things}, how many {things} does {n} have
= e + b, p - a ? if {o2} has {e} {things}, how many {things} does {o} have
= d + a, p - b ? if {o} has {d} {things}, how many {things} does {o2} have
= b - a ? how many more {things} does {o} have than {o2}

: fruit toy book candy
. {n} has {a} more {x1} {things} and {b} fewer {x2} {things} than {o}
. {o} has {c} {x1} {things} and {d} {x2} {things}
! d - b
= c + a ? how many {x1} {things} does {n} have
= d - b ? how many {x2} {things} does {n} have
= c + d ? how many {things} does {o} have [in all|altogether]
= c - d ? how many more {x1} {things} than {x2} {things} does {o} have
= d - c ? how many more {x2} {things} than {x1} {things} does {o} have
= c + a, d - b, p + q ? how many {things} does {n} have in all

: toy school candy treat
. {n} had {a} {things} in a {box}
. {he} [found|got|won] {b} [more {things}|more] {t1} and lost {c} [{things}|of them] {t2}
! a - c
= b - c ? how many more {things} did {he} find than lose
= c - b ? how many more {things} did {he} lose than find
= a + b, p - c ? how many {things} [does {he} have now|are in the {box} now]
= a + b ? how many {things} did {he} have before {he} lost some
= a - c ? how many {things} would {he} have if {he} had found none

: toy school candy treat fruit
. {n} had some {things}
. {he} gave {a} to {o} and {b} to {o2}
~ {o2} already had {d} {things}
= c + a, p + b ? how many {things} did {n} have [at first|to start with] if {he} [has {c} left|kept {c}]
= a + b ? how many {things} did {n} give away
= a - b ? how many more {things} did {o} get than {o2}
= b - a ? how many fewer {things} did {o} get than {o2}
= d + b ? how many {things} does {o2} have now

: ; beast: duck|goose|pigeon|gull|crow|swan|sparrow; place: pond|roof|fence|field|pier; other: robin|heron|finch|owl
. {a} {beasts} and {b} {others} were [sitting|resting] [by|near] the {place}
. {c} more {beasts} [came|flew in|arrived]
~ there were {e} trees around
= a + c ? how many {beasts} [are there now|were there then]
= a + b ? how many birds were there [at first|before the others came]
= a + b, p + c ? how many birds [are there now|were there then] [in all|altogether]
= a + c, p - b ? how many more {beasts} than {others} are there now
= b - a ? how many more {others} than {beasts} were there at first
= c - b ? how many more {beasts} came than there were {others}
= d - b ? later more {others} came, and now there are {d} {others}. how many {others} came

: ; beast: duck|goose|horse|sheep dog|cow|goat|deer; place: meadow|valley|field|barn
. there were {a} {beasts} in the {place}
. some of them [left|ran off|wandered away], and {b} {beasts} [stayed|are left|remain]
~ a farmer has looked after them for {s} years
! a - b
= a - b ? how many {beasts} [left|are gone]
= a + c ? how many {beasts} were there the day before, when there were {c} more
= b + c ? how many {beasts} will be there if {c} new ones come

: ; beast: duck|goose|horse|cow|goat|pony; place: meadow|valley|field|barn
. some {beasts} were in the {place}
. {a} more {beasts} [joined them|came], so now there are {b} {beasts}
~ {c} of those that came are brown
! b - a, a - c
= b - a ? how many {beasts} were there [at first|before]
= a - c ? how many of the new ones are not brown
= b - c ? how many of all the {beasts} are not among the brown ones that came

: ; vehicle: bus|tram|train|ferry|subway car; who: passenger|child|person|student
. there were {a} {whos} on the {vehicle}
. at the [first|next|second] stop {b} {whos} got off and {c} [got on|more got on]
~ the {vehicle} has {e} [windows|lamps]
! a - b
= a - b, p + c ? how many {whos} are on the {vehicle} now
= c - b ? how many more {whos} got on than got off
= b - c ? how many more {whos} got off than got on
= a - b ? how many {whos} stayed on [|at that stop]
= b - c ? how many fewer {whos} are there now than at the start
= c - b ? how many more {whos} are there now than at the start

: ; vehicle: bus|tram|train|ferry|subway car; who: passenger|child|person|student
. some {whos} were on the {vehicle}
. at the [first|next|last] stop {a} more got on, which made {b} {whos}
. then {c} got off
! b - a, b - c
= b - a ? how many {whos} were there at first
= b - c ? how many {whos} are on the {vehicle} now
= a - c ? how many more {whos} got on than got off
= c - a ? how many more {whos} got off than got on

: ; subject: math|history|science|spelling|geography; other: reading|music|art|biology
. {n} has {a} pages of {subject} homework and {b} pages of {other} homework
~ {he} has {c} days to finish it
~ {his} {rel} has {d} pages of {subject} homework
= a + b ? how many pages of homework does {he} have [in all|altogether]
= a - b ? how many more pages of {subject} homework than {other} homework does {he} have
= b - a ? how many fewer pages of {subject} homework than {other} homework does {he} have
= d - a ? how many more pages of {subject} homework does {his} {rel} have than {n}
= a + d ? how many pages of {subject} homework do {n} and {his} {rel} have together
= a + b, p - e ? how many pages are left after {he} has done {e} pages

: ; subject: math|history|science|spelling|geography; other: reading|music|art|biology
. {n} [must do|had to do|has] {a} pages of {subject} homework
. {he} [must do|had to do|has] {b} more pages of {other} homework than of {subject} homework
= a + b ? how many pages of {other} homework is that
= a + b, a + p ? how many pages of homework is that in all

: ; subject: math|history|science|spelling|geography; other: reading|music|art|biology
. {n} [must do|had to do|has] {a} pages of {subject} homework
. {he} [must do|had to do|has] {b} more pages of {subject} homework than of {other} homework
= a - b ? how many pages of {other} homework is that
= a - b, a + p ? how many pages of homework is that in all

: ; sport: push-up|sit-up|pull-up|jumping jack|squat|lap
. {n} did {a} {sports} and {o} did {b} more {sports} than {n}
~ {o2} did {c} {sports}
= a + b ? how many {sports} did {o} do
= a + b, a + p ? how many {sports} did {n} and {o} do [together|altogether]
= a + c ? how many {sports} did {n} and {o2} do [together|altogether]
= c - a ? how many more {sports} did {o2} do than {n}
= a - c ? how many fewer {sports} did {o2} do than {n}
= a + b, p - c ? how many more {sports} did {o} do than {o2}

: ; sport: push-up|sit-up|pull-up|jumping jack|squat|lap
. {n} did {a} {sports} [today|in class|this morning]
. {o} did {b} {sports} less than {n}
! a - b
= a - b ? how many {sports} did {o} do
= a - b, a + p ? how many {sports} did the two do [together|altogether]

: ; who: frog|cricket|rabbit|kangaroo|squirrel; other: mouse|toad|hare|flea|lizard
. in a jumping contest the {who} jumped {a} inches and the {other} jumped {b} inches
~ a cat jumped {c} inches farther than the {who}
= a - b ? how much farther did the {who} jump than the {other}
= b - a ? how much farther did the {other} jump than the {who}
= a + c ? how far did the cat jump
= a + b ? how far did the {who} and the {other} jump [together|altogether]
= a + c, p - b ? how much farther did the cat jump than the {other}

: ; who: frog|cricket|rabbit|kangaroo|squirrel; other: mouse|toad|hare|flea|lizard
. the {who} jumped {a} inches
. the {who} jumped {b} inches [farther|more] than the {other}
~ a cat jumped {c} inches farther than the {other}
! a - b
= a - b ? how far did the {other} jump
= a - b, p + c ? how far did the cat jump
= a - b, a + p ? how far did the {who} and the {other} jump together
= c - b ? how much farther did the cat jump than the {who}
= b - c ? how much farther did the {who} jump than the cat

: ; place: school|college|club|village|camp
. a {place} has {a} [pupils|members|people]
. {b} of them are girls and the [rest|others] are boys
~ {c} of the girls [wear glasses|play an instrument|sing in a choir]
! a - b, b - c
= a - b ? how many boys are there
= b - c ? how many of the girls do not
= a - b, b - p ? how many more girls than boys are there
= a - b, p - b ? how many more boys than girls are there

: ; place: school|college|club|village|camp
. there are {a} girls in a {place}
. there are {b} more girls than boys
~ the {place} is {e} years old
! a - b
= a - b ? how many boys are there in the {place}
= a - b, a + p ? how many [children|boys and girls] are there in the {place}
= a + c ? how many girls will there be when {c} more come

: ; place: school|college|club|village|camp
. there are {a} boys in a {place}
. there are {b} more girls than boys
~ the {place} is {e} years old
= a + b ? how many girls are there in the {place}
= a + b, a + p ? how many [children|boys and girls] are there in the {place}

: ; item: toy car|comic book|sandwich|poster|kite|notebook|hat|cake|lamp; thing: pen|game|snack|puzzle|bracelet|cap
. {n} spent [{a} dollars|$ {a}|${a}] on {items} and [{b} dollars|$ {b}|${b}] on {things}
~ {he} now has [{c} dollars|${c}] left
~ each of the {things} cost {d} dollars
! b / d
= a + b ? how [much money|many dollars] did {he} spend [in all|altogether]
= a - b ? how [much more money|many more dollars] did {he} spend on {items} than on {things}
= b - a ? how much more did {he} spend on {things} than on {items}
= a + b, p + c ? how [much money|many dollars] did {he} have [at first|before that]
= b / d ? how many {things} did {he} buy

: ; item: toy car|comic book|sandwich|poster|kite|notebook|hat|cake|lamp
. {n} had {a} dollars
. {he} spent {b} dollars to buy {k} {items}, each at the same price
! a - b, a - b - c
= a - b ? how [much money|many dollars] does {he} have left
= b / k ? how [much|many dollars] did each of the {items} cost
= a - c ? if {he} comes home with {c} dollars, how much was spent altogether
= b / k, p * l ? how [much|many dollars] would {l} {items} cost

: ; item: toy car|comic book|sandwich|poster|kite|notebook|hat|cake|lamp; event: birthday|name day|good grades
. {n} [got|received] {a} dollars for {his} {event}
. {he} spent some of [it|the money] on {items} and has {b} dollars left
~ {he} bought {k} {items}
! a - b
= a - b ? how [much money|many dollars] did {he} spend
= a - b, p / k ? how [much|many dollars] did each of the {items} cost
= b + c ? how [much|many dollars] will {he} have if {his} {rel} gives {him} {c} dollars more

: ; item: shirt|cap|mug|scarf|poster; other: jacket|sweater|bag|flag|ball
. a [store|shop|stand] earns {a} dollars for each {item} and {b} dollars for each {other}
. {t1} it sold {k} {items} and {l} {others}
= a * k ? how [much money|many dollars] did it earn with the {items}
= b * l ? how [much money|many dollars] did it earn with the {others}
= a - b ? how much more does it earn for [a|one] {item} than for [a|one] {other}
= b - a ? how much less does it earn for [a|one] {item} than for [a|one] {other}
= k - l ? how many more {items} than {others} were sold
= l - k ? how many fewer {items} than {others} were sold
= k + l ? how many pieces were sold [in all|altogether]

: ; item: shirt|cap|mug|scarf|poster|ball|flag
. a [store|shop|stand] made {a} dollars by selling {items}
. it makes {k} dollars [off|on|with] each {item}
~ it has {e} {items} in stock
= a / k ? how many {items} did it sell
= a / k, p + l ? how many {items} would it sell if {l} more people bought one
= e * k ? how [much|many dollars] could it make with all the {items} that it has

: ; item: DVD|notebook|T-shirt|battery|candle|plate|pencil|towel; pack: pack|box|set
. {n} [can buy|bought] {k} {packs} of {items} with {a} dollars
~ there are {l} {items} in [each|every] {pack}
! a / k
= a / k ? how [much|many dollars] does each {pack} cost
= k * l ? how many {items} are that in all
= a - c ? with a discount of {c} dollars, how much is to be paid
= a / k, p - c ? how [much|many dollars] does each {pack} cost if there is a discount of {c} dollars on each {pack}
= a / k, p * s ? how [much|many dollars] do {s} {packs} cost

: ; item: DVD|notebook|T-shirt|battery|candle|plate|towel; pack: pack|box|set
. each {pack} of {items} costs {a} dollars
. there is a discount of {b} dollars on each {pack}
~ {n} has {c} dollars with {him}
! a - b
= a - b ? how [much|many dollars] [must {he} pay for|does {he} pay for|does it take to buy] one {pack}
= a - b, p * k ? how [much|many dollars] does it take to buy {k} {packs}
= a * k ? how [much|many dollars] would {k} {packs} cost without the discount
= c / a ? how many {packs} could {n} have bought without the discount

: candy treat fruit school toy
. {n} had {a} {things} and {b} empty {boxes}
. {he} [put|packed] {k} {things} [in|into] each {box} that {he} used
! a / k, b * k - a
= a / k ? how many {boxes} did {he} use
= a / k, b - p ? how many {boxes} stayed empty
= b * k ? how many {things} would fill all the {boxes}
= a - c ? how many {things} would be left if {c} were eaten by mice

: candy treat fruit school toy
. {n} had {a} {things}
. {he} [put|divided|sorted] them equally into {k} {boxes}
~ {his} {rel} had {b} {things} in {l} {boxes}
! a / k, b / l
= a / k ? how many {things} are in each of {n}'s {boxes}
= b / l ? how many {things} are in each of the {rel}'s {boxes}
= a + b ? how many {things} do they have [together|in all]
= k + l ? how many {boxes} do they have [together|in all]
= a - b ? how many more {things} does {n} have than {his} {rel}
= a / k, b / l, p - q ? how many more {things} are in a {box} of {n} than in one of {his} {rel}

: candy treat
. {n} had {a} {things} and {b} cups of juice
. {he} [gave|served] equal numbers of {things} to {k} [friends|guests|children]
! a / k
= a / k ? how many {things} did each [friend|of them] get
= a + b ? how many things did {he} have to serve
= a - b ? how many more {things} than cups of juice did {he} have
= b - a ? how many fewer {things} than cups of juice did {he} have
= b / k ? how many cups of juice did each get if those were shared equally [as well|too]

: candy treat
. {n} had {a} {things}
. after giving [an equal number|equal numbers] of {things} to {k} [friends|guests|children], {he} had {b} left
! a - b / k
= a - b ? how many {things} did {he} give away
= a - b, p / k ? how many {things} did each of them get
= b + c ? how many {things} would {he} have after making {c} more

: ; who: mail carrier|newspaper boy|volunteer; item: letter|flyer|newspaper|magazine; lane: block|street|village
. a {who} has to bring {k} {items} to each house
. there are {s} houses in each {lane}
~ there are {t} {lanes}
! k * s * t - a
= k * s ? how many {items} go to one {lane}
= s * t ? how many houses are there [in all|altogether]
= s * t, p * k ? how many {items} are that in all
= a / k ? if {a} {items} were brought, how many houses got them

: ; who: mail carrier|newspaper boy|volunteer; item: letter|flyer|newspaper|magazine; lane: block|street|village
. a {who} has to bring {a} {items} to each {lane}
. {b} of the houses there are white
. each house gets {k} {items}
! a / k - b
= a / k ? how many houses are there in a {lane}
= b * k ? how many {items} go to white houses
= a / k, p - b ? how many houses in a {lane} are not white

: ; item: ride|slide|swing boat|Ferris wheel|gondola lift; seat: seat|cabin|car
. the {item} [in the park|at the fair] has {s} {seats}
. each {seat} [holds|has room for|can hold] {k} people
~ {t} of the {seats} are broken
~ {a} people are waiting
! s - t
= s * k ? how many people can ride at the same time
= s - t, p * k ? how many people can ride on the {seats} that are not broken
= t * k ? how many people would fit on the broken {seats}
= s - t ? how many {seats} can be used
= a - k ? how many people are still waiting when one {seat} has been filled

: ; item: ride|slide|swing boat|Ferris wheel|gondola lift; seat: seat|cabin|car
. the {item} [in the park|at the fair] has some {seats}
. each {seat} [holds|has room for|can hold] {k} people, and {a} people can ride at once
~ {b} people were waiting
! a / k
= a / k ? how many {seats} does it have
= b - a ? how many of those waiting could not ride at once
= b + c ? how many people were waiting after {c} more came

: ; game: trivia|quiz|card|video|word
. {n} scored {a} points in a {game} game, with the same number in each of {k} rounds
~ {o} scored {b} points
! a / k
= a / k ? how many points did {n} score in each round
= a - b ? how many more points did {n} score than {o}
= b - a ? how many more points did {o} score than {n}
= a + b ? how many points did they score together
= a / k, p * l ? how many points would {n} score in {l} rounds

: ; game: trivia|quiz|card|video|word
. {n} played a {game} game and gained {k} points in each round
. in the end {he} had {a} points
~ {he} played with {l} friends
! a / k
= a / k ? how many rounds did {he} play
= a + b ? how many points would it have been with a bonus of {b} points
= k * s ? how many points does {he} get in {s} rounds

: ; sport: basketball|handball|soccer|football|hockey
. {n} played {s} {sport} games {t1} and {t} games {t2}
. {he} went to {u} games with {his} {rel}
~ {he} scored {a} points
! s + t - u
= s + t ? how many games did {he} play [in all|altogether]
= s - t ? how many more games did {he} play {t1} than {t2}
= t - s ? how many fewer games did {he} play {t1} than {t2}
= s + t, p - u ? how many games did {he} play without {his} {rel}

: ; one: Monday; two: Tuesday; three: Wednesday|Thursday|Friday; act: played tag|played chess|sang|swam|ran|danced
. {n} {act} with {a} [children|kids] on {one} and with {b} on {two}
~ {he} {act} with {c} on {three}
= a + b ? with how many [children|kids] was that on {one} and {two} together
= a - b ? with how many more was that on {one} than on {two}
= b - a ? with how many more was that on {two} than on {one}
= a + c ? with how many was that on {one} and {three} together
= b - c ? with how many more was that on {two} than on {three}
= c - b ? with how many more was that on {three} than on {two}
= c - a ? with how many fewer was that on {one} than on {three}
= a + b, p + c ? with how many [children|kids] was that on all the days together

: ; one: Monday; two: Tuesday; act: played tag|played chess|sang|swam|ran|danced
. {n} {act} with {a} [children|kids] on {one}
. that was {b} more than on {two}
! a - b
= a - b ? with how many was it on {two}
= a - b, a + p ? with how many was it on the two days together

: ; mail: letter|postcard|parcel|package|card; other: e-mail|message|call
. {n} [got|received] {a} {others} and {b} {mails} in the morning
. in the afternoon {he} [got|received] {c} {others} and {d} {mails}
= a + c ? how many {others} did {he} get [in the day|altogether|that day]
= b + d ? how many {mails} did {he} get [in the day|altogether|that day]
= a - c ? how many more {others} came in the morning than in the afternoon
= d - b ? how many more {mails} came in the afternoon than in the morning
= a + b ? how many {others} and {mails} came in the morning
= c - d ? how many more {others} than {mails} came in the afternoon
= b - a ? how many more {mails} than {others} came in the morning

: ; mail: letter|postcard|parcel|package|card|e-mail|message
. {n} [got|received] {a} {mails} in the morning, {b} in the afternoon and [some|some more] in the evening
= a + b, c - p ? how many {mails} came in the evening if it was {c} in the whole day
= a + b ? how many {mails} had come before the evening
= a - b ? how many more {mails} came in the morning than in the afternoon
= b - a ? how many more {mails} came in the afternoon than in the morning

: book toy; other: picture frame|plant|candle|trophy|vase
. there were {a} {things} and {b} {others} on {n}'s shelf
. [later|then|the next day] {he} put {c} more {others} on it
= b + c ? how many {others} are on the shelf now
= a + b ? how many things stood there at first
= a + b, p + c ? how many things are on the shelf now
= b + c, p - a ? how many more {others} than {things} are on the shelf now
= a - b ? how many more {things} than {others} were there at first
= a - c ? how many more {things} were there than {others} were added

: book toy; other: picture frame|plant|candle|trophy|vase
. {n} had {a} {things} on a shelf
. [later|then] {he} added some more, and now there are {b}
~ there are {c} {others} on the shelf
! b - a
= b - a ? how many {things} did {he} add
= b + c ? how many {things} and {others} are on the shelf now
= b - c ? how many more {things} than {others} are on the shelf now
= c - a ? how many more {others} than {things} were there at first

: ; story: series|collection|saga; one: book|novel|comic; two: movie|film|episode
. there are {a} {ones} and {b} {twos} in a {story}
. {n} has read {c} of the {ones} and watched {d} of the {twos}
! a - c, b - d
= a - c ? how many more {ones} does {he} have to read
= b - d ? how many more {twos} does {he} have to watch
= a - b ? how many more {ones} than {twos} are in the {story}
= b - a ? how many more {twos} than {ones} are in the {story}
= c - d ? how many more {ones} than {twos} has {he} finished
= d - c ? how many more {twos} than {ones} has {he} finished
= c + d ? how many of all has {he} finished
= a - c, b - d, p + q ? how many are left to read or watch

: ; ing: flour|oats|rice|cornmeal; other: sugar|milk|butter|cocoa; third: salt|nuts|raisins; dish: cake|bread|pudding
. a recipe for {dish} calls for {a} cups of {ing}, {b} cups of {other} and {c} cups of {third}
. {n} has already put in {d} cups of {ing}
! a - d
= a - d ? how many more cups of {ing} does {he} need to add
= a + b ? how many cups of {ing} and {other} does the recipe call for
= a - b ? how many more cups of {ing} than of {other} does the recipe call for
= b - c ? how many more cups of {other} than of {third} are in the recipe
= a - d, b - p ? how many more cups of {other} than of {ing} are still to be added
= a - d, p - c ? how many more cups of {ing} than of {third} are still to be added

: ; ing: flour|oats|rice|cornmeal; other: sugar|milk|butter|cocoa; dish: cake|bread|pudding
. {n} makes {dish}, which takes {a} cups of {ing} and {b} cups of {other}
. {he} has put in some of the {ing} and needs {c} more cups of it
! a - c
= a - c ? how many cups of {ing} has {he} put in
= b + c ? how many cups are still missing if no {other} is in yet
= b - c ? how many more cups of {other} than of {ing} are missing if no {other} is in yet

: ; what: hair|beard|fence post|branch|rope|candle
. {n} cut off {a} inches of a {what}
~ it took {him} {c} minutes
= b - a ? if the {what} was {b} inches long before, how long is it now
= a + b ? if the {what} is {b} inches long now, how long was it before

: ; who: cat|dog|calf|donkey|pony; act: a diet|long walks|training|a fever; unit: kilogram|pound
. [the|a] {who} weighed {a} {units}
. with {act} it lost {b} {units}, {c} of them in the first week
! a - b, b - c
= a - b ? how much does the {who} weigh now
= b - c ? how much was lost after the first week
= a - c ? how much did the {who} weigh after the first week

: ; who: cat|dog|calf|donkey|pony; act: a diet|daily walks|much training; unit: kilogram|pound
. {act} helped [the|a] {who} to lose {a} {units}, so that it weighs {b} {units} now
~ that took {c} weeks
= a + b ? how much did the {who} weigh before
= b - e ? how much will the {who} weigh when {e} more are lost
= a + e ? how much will be lost when {e} more are gone

: ; room: room|garden|field|hall|barn; unit: step|meter|yard|pace
. {n}'s {room} is {a} {units} long and {b} {units} wide
~ the one of {o} is {c} long
! a - b
= a - b ? how much longer than wide is it
= a * b ? how large is it in square {units}
= a + b, k * p ? what is the length of {k} ropes that each go along one long and one wide side
= c - a ? how much longer is that of {o}
= a - c ? how much shorter is that of {o}

: ; one: English|French|piano|chess; two: Spanish|Chinese|drawing|swimming
. every day {n} spends {a} minutes on {one} and {b} minutes on {two}
~ {he} has done so for {k} days
= a + b ? how many minutes is that a day
= a - b ? how many more minutes does {he} spend on {one} than on {two}
= b - a ? how many more minutes does {he} spend on {two} than on {one}
= a * k ? how many minutes has {he} spent on {one}
= b * k ? how many minutes has {he} spent on {two}
= a + b, p * k ? how many minutes is that in all these days

: ; one: English|French|piano|chess; two: Spanish|Chinese|drawing|swimming
. every day {n} spends {a} minutes on {one} and some on {two}
. {he} spends {b} minutes [more|longer] on {one} than on {two}
! a - b
= a - b ? how many minutes does {he} spend on {two}
= a - b, a + p ? how many minutes is that a day
= a * k ? how many minutes does {he} spend on {one} in {k} days

: flower; other: fern|cactus|palm|herb
. there were {a} {things} and {b} {others} in the [vase|greenhouse|garden|window]
. {n} brought some more of both, so that there are now {c} {things} and {d} {others}
! c - a, d - b
= c - a ? how many {things} did {he} bring
= d - b ? how many {others} did {he} bring
= c - d ? how many more {things} than {others} are there now
= d - c ? how many more {others} than {things} are there now
= c + d ? how many plants are there now
= a - b ? how many more {things} than {others} were there at first
= c - a, d - b, p + q ? how many plants did {he} bring

: ; one: apple|cherry|plum|peach; two: pear|lemon|fig|olive; pest: storm|drought|hailstorm|beetle plague
. {n} [grew|planted] {a} {one} trees and {b} {two} trees
. a {pest} killed {c} of the {one} trees
~ the {pest} lasted {e} days
! a - c
= a - c ? how many {one} trees are left
= a + b ? how many trees did {he} have at first
= a + b, p - c ? how many trees are left
= a - c, b - p ? how many more {two} trees than {one} trees are left
= c - b ? how many more {one} trees died than there are {two} trees

: ; one: apple|cherry|plum|peach; pest: storm|drought|hailstorm|beetle plague
. after a {pest} {n} had {a} {one} trees left, and {b} were dead
~ {he} plants {c} new ones
= a + b ? how many {one} trees were there before the {pest}
= a - b ? how many more are alive than died
= b - a ? how many more died than are alive
= a + c ? how many living trees will there be after the planting
= c - b ? how many more trees will there be than before the {pest}

: ; crop: tomato|potato|pumpkin|melon|pepper|onion; who: farmer|gardener|neighbor
. a {who} had {a} {crops} in the garden
. {b} were picked yesterday and {c} were picked today
! a - b - c
= a - b ? how many were left after yesterday
= b + c ? how many were picked [in all|altogether]
= a - b, p - c ? how many are left now
= b - c ? how many more were picked yesterday than today
= c - b ? how many more were picked today than yesterday

: ; crop: tomato|potato|pumpkin|melon|pepper|onion; who: farmer|gardener|neighbor
. a {who} had {a} green {crops} and {b} red {crops}
. {c} {crops} were [picked|sold|eaten]
! a + b - c, a + b - c - d
= a + b, p - c ? how many {crops} are left
= a + b ? how many {crops} were there [at first|before]
= a - b ? how many more green than red ones were there
= b - a ? how many more red than green ones were there
= c + d ? if {d} more are [picked|sold|eaten], how many is that

: ; who: baker|cook|caterer; one: cake|pie|tart; two: roll|pretzel|bun|muffin
. a {who} made {a} {ones} and {b} {twos}
. {c} {ones} and {d} {twos} were sold
! a - c, b - d
= a - c ? how many {ones} are left
= b - d ? how many {twos} are left
= c + d ? how many were sold altogether
= c - d ? how many more {ones} than {twos} were sold
= d - c ? how many more {twos} than {ones} were sold
= a - b ? how many more {ones} than {twos} were made
= b - a ? how many more {twos} than {ones} were made
= a - c, b - d, q - p ? how many more {twos} than {ones} are left

: ; who: baker|cook|caterer; one: cake|pie|tart|roll|pretzel|bun|muffin
. a {who} made {a} {ones} [yesterday|in the morning] and {b} more [today|in the afternoon]
. {c} {ones} were sold
! a + b - c
= a + b ? how many {ones} were made
= a + b, p - c ? how many {ones} are left
= b - a ? how many more were made [today|in the afternoon] than before
= c - a ? how many more were sold than had been made [yesterday|in the morning]

: ; place: store|shop|kiosk|cafeteria; one: soda|lemonade|milk|apple juice; two: water|iced tea|tomato juice|cocoa
. a {place} has {a} bottles of {one}, {b} bottles of {two} and {c} apples
= a + b ? how many bottles are there
= a - b ? how many more bottles of {one} than of {two} are there
= b - a ? how many more bottles of {two} than of {one} are there
= a + b, p - c ? how many more bottles than apples are there
= a - c ? how many more bottles of {one} than apples are there
= c - b ? how many more apples than bottles of {two} are there

: ; place: store|shop|kiosk|cafeteria; one: soda|lemonade|milk|apple juice; two: water|iced tea|tomato juice|cocoa
. a {place} has {a} bottles, of which {b} hold {one} and the rest hold {two}
~ {c} bottles of {one} are cold
! a - b, b - c
= a - b ? how many bottles hold {two}
= b - c ? how many bottles of {one} are not cold
= a - b, b - p ? how many more bottles of {one} than of {two} are there
= a - b, p - b ? how many more bottles of {two} than of {one} are there

: ; one: soda|lemonade|milk|juice; two: water|tea|cocoa
. {n} bought {a} bottles of {one} and {b} bottles of {two}
. {he} [drinks|uses|needs] {k} bottles of {one} and {l} bottles of {two} a day
! a / k, b / l
= a / k ? how many days will the {one} last
= b / l ? how many days will the {two} last
= k + l ? how many bottles does {he} [drink|use|need] a day
= a + b ? how many bottles did {he} buy
= a - b ? how many more bottles of {one} than of {two} did {he} buy

: ; who: visitor|tourist|guest|student; place: castle|museum|tower|palace|lighthouse
. {a} {whos} came to the {place} on [Friday|one day|the first day] and {b} [on Saturday|the day after]
~ the {place} is {c} years old
= a + b ? how many {whos} came on the two days
= a - b ? how many more {whos} came on the former day than on the latter
= b - a ? how many more {whos} came on the latter day than on the former
= a * k ? how many {whos} come in {k} days if there are as many every day as on the first

: ; act: rowing|swimming|hiking|fishing|climbing; who: camper|guest|child|scout
. {a} {whos} went {act} in the morning and {b} {whos} went {act} in the afternoon
~ {c} {whos} stayed [at the camp|behind] all day
~ {d} went in the evening
= a + b ? how many {whos} went {act} [in the day|before the evening]
= a - b ? how many more went {act} in the morning than in the afternoon
= b - a ? how many more went {act} in the afternoon than in the morning
= a + d ? how many went {act} in the morning and in the evening together
= d - b ? how many more went {act} in the evening than in the afternoon
= b + d ? how many went {act} after the morning

: ; act: camp|the lake|a party|the beach; place: town|county|suburb|village
. {a} [children|people] from the {place} went to {act} and the other {b} stayed home
~ {c} [children|people] from elsewhere went there too
= a + b ? how many [children|people] are there in the {place}
= a + c ? how many went to {act} in all
= a - b ? how many more went than stayed home
= b - a ? how many more stayed home than went
= c - a ? how many more came from elsewhere than from the {place}

: ; act: camp|the lake|a party|the beach; place: town|county|suburb|village
. {a} [children|people] live in the {place}
. {b} of them went to {act} and the rest stayed home
! a - b
= a - b ? how many stayed home
= a - b, p - b ? how many more stayed home than went
= a - b, b - p ? how many more went than stayed home
= b + c ? how many were there in all with {c} from elsewhere

: ; beast: swallow|stork|crane|goose|duck; land: Africa|the south|the coast; other: Asia|the east|the islands
. {a} {beasts} lived [near the river|by the hills|in the woods]
. {b} of them flew to {land} and {c} flew to {other} for the winter
! a - b - c
= b + c ? how many {beasts} flew away
= b - c ? how many more {beasts} flew to {land} than to {other}
= c - b ? how many more {beasts} flew to {other} than to {land}
= b + c, a - p ? how many {beasts} stayed
= a - b ? how many {beasts} did not fly to {land}
= a - c ? how many {beasts} did not fly to {other}

: ; beast: snake|turtle|lizard|monkey|penguin; other: alligator|parrot|otter|seal; place: cage|house|hall
. at the zoo a {place} has {a} {beasts} and {b} {others}
. {c} of the {others} were [hiding|asleep|in the water]
! b - c
= b - c ? how many {others} were not
= a + b ? how many animals are in the {place}
= a + b, p - c ? how many animals could {n} see
= a - b ? how many more {beasts} than {others} are there
= b - a ? how many more {others} than {beasts} are there
= b - c, a - p ? how many more {beasts} than {others} could {n} see

: toy school; other: coin|ticket|medal
. {n} has {a} {things} and {b} {others} in {his} collection
. the {things} are organized into {k} [groups|equal groups]
! a / k
= a / k ? how big is each group
= a + b ? how large is the whole collection
= a - b ? how many more {things} than {others} are there
= b - a ? how many more {others} than {things} are there
= a / k, p * l ? how many {things} are in {l} of the groups

: toy school; other: coin|ticket|medal
. the {things} of {n}'s collection are put into groups of {k}, and the {others} into groups of {l}
. {he} has {a} {things} and {b} {others}
! a / k, b / l
= a / k ? how many groups of {things} are there
= b / l ? how many groups of {others} are there
= a / k, b / l, p + q ? how many groups are there in all
= a + b ? how many pieces does {he} have

: ; who: chef|cook|baker; fruit: apple|lemon|egg|potato|onion
. a {who} had {a} {fruits} and used some of them
. {b} {fruits} are left
~ the {who} needed {k} for each meal
! a - b, a - b / k
= a - b ? how many {fruits} were used
= a - b, p / k ? how many meals were made
= b + c ? how many {fruits} will there be when {c} more are bought
= b / k ? how many meals can be made with what is left

: ; who: chef|cook|baker; fruit: apple|lemon|egg|potato|onion
. after using {a} {fruits} for lunch, a {who} had {b} {fruits} left
~ {c} {fruits} had been bad
= a + b ? how many {fruits} were there before lunch
= a + b, p + c ? how many {fruits} were there with the bad ones
= b - d ? how many will be left when dinner takes {d}
= a - b ? how many more were used than are left

: ; block: block|brick|log|card|stone; one: house|bridge|wall; two: tower|castle|gate
. {n} has {a} {blocks}
. {he} uses {b} {blocks} to build a {one} and {c} {blocks} to build a {two}
! a - b - c
= b + c ? how many {blocks} does {he} use
= b - c ? how many more {blocks} does {he} use for the {one} than for the {two}
= c - b ? how many more {blocks} does {he} use for the {two} than for the {one}
= b + c, a - p ? how many {blocks} are left
= a - b ? how many {blocks} are left when the {one} is built and the {two} is not

: ; block: block|brick|log|card|stone; two: tower|castle|gate|house|wall
. {n} has some {blocks}
. {he} uses {a} of them to build a {two} and has {b} left
= a + b ? how many {blocks} did {he} have [at the start|at first|before]
= a - b ? how many more did {he} use than are left
= b - a ? how many more are left than {he} used
= b - c ? how many will be left when {c} more are used

: ; one: chapter|part|volume; thing: book|diary|guide|report
. the first {one} of a {thing} has {a} pages, the second has {b} pages and the third has {c} pages
= a + b ? how many pages do the first two have
= a + b, p + c ? how many pages does the {thing} have
= b - a ? how many more pages does the second {one} have than the first
= a - c ? how many more pages does the first {one} have than the third
= c - b ? how many fewer pages does the second {one} have than the third
= b + c ? how many pages are there after the first {one}

: ; thing: book|diary|guide|report
. a {thing} has {a} pages in {k} chapters of equal length
. {n} [read|finished] it in {l} days
! a / k, a / l
= a / k ? how many pages does each chapter have
= a / l ? how many pages did {he} read a day
= a - b ? how many pages are left after {b} pages

: ; worker: picker|worker|machine|crew; crop: grape|berry|olive|apple; vessel: drum|crate|barrel|basket
. {a} {workers} fill {k} {vessels} of {crops} a day
~ they have worked for {s} years
= k * s ? how many {vessels} of {crops} are filled in {s} days
= b / k ? in how many days are {b} {vessels} filled
= a + b ? how many {workers} are there when {b} more come
= a - b ? how many {workers} are left when {b} go home

: ; deep: lake|pool|pond|well
. {n} is {a} feet shorter than a [tree|tower|pole] that is {b} feet tall
. the {deep} is {k} times as deep as {n} is tall
! b - a
= b - a ? how tall is {n} in feet
= b - a, p * k ? how deep is the {deep} in feet
= b * k ? how deep would the {deep} be if {n} were as tall as that

: ; place: class|club|team
. there are {a} [children|students] in a {place}, and {k} of them collect stamps
. {n} has {b} stamps, keeps {c} for {his} own album and shares the rest equally among those {k}
! b - c / k, a - k
= b - c ? how many stamps does {n} give away
= b - c, p / k ? how many stamps does each of them get
= a - k ? how many in the {place} do not collect stamps

: ; item: invitation|card|letter|photo
. {n} bought {k} packs of {items} with {s} {items} in each
. {he} [sent|gave] [{a} of them|{a} {items}] to friends
! k * s - a
= k * s ? how many {items} did {he} buy
= k * s, p - a ? how many {items} are left
= s - k ? how many more {items} are in a pack than there are packs
= a - s ? how many more than a pack did {he} need for {his} friends

: ; item: invitation|card|letter|photo
. {n} wants to [send|give] one {item} to each of {a} friends
. there are {k} {items} in a pack
~ a pack costs {l} dollars
! a / k
= a / k ? how many packs does {he} need
= a / k, p * l ? how [much|many dollars] does {he} pay
= a + b, p / k ? how many packs does {he} need if {b} more friends want one

: ; food: mashed potatoes|soup|salad|pasta; other: bacon|tomatoes|rice|corn
. {a} students want only {food} for lunch, {b} want only {other} and {c} want both
= a - b ? how many more want only {food} than want only {other}
= b - a ? how many more want only {other} than want only {food}
= a + b ? how many want just one of the two
= a + c ? how many want {food}
= b + c ? how many want {other}
= a + b, p + c ? how many students are that
"""


class Variation(NamedTuple):
    """One question about a scene."""

    kinds: tuple[str, ...]
    words: tuple[tuple[str, tuple[str, ...]], ...]
    facts: tuple[tuple[str, bool], ...]  # whether it is always told
    conditions: tuple[tuple[str, ...], ...]  # number, operation, number, ...
    equations: tuple[tuple[str, str, str, str], ...]  # (result, left, operation, right)
    question: str


def _parse(block: str) -> Iterator[Variation]:
    lines = [(line[0], line[2:]) for line in block.splitlines()]
    kinds, *words = (part.strip() for part in lines[0][1].split(";"))
    facts = tuple((text, mark == ".") for mark, text in lines if mark in ".~")
    conditions = tuple(tuple(part.split()) for mark, text in lines if mark == "!" for part in text.split(", "))
    for mark, text in lines:
        if mark == "=":
            equations, question = text.split(" ? ")
            steps = tuple((name, *step.split()) for name, step in zip("pqr", equations.split(", "), strict=False))
            yield Variation(tuple(kinds.split()), choices_of(words), facts, conditions, steps, question)


VARIATIONS = tuple(variation for block in _SCENES.strip().split("\n\n") for variation in _parse(block))
_NUMBERS = "abcdefklmstu"
_NUMBER = re.compile(rf"\{{([{_NUMBERS}])\}}")


def _draw_numbers(variation: Variation, names: list[str], rng: random.Random) -> dict[str, int]:
    """Draws numbers until what the scene tells can be, and every result is a whole number from 1 to 999."""
    large, factor, small = rng.choices(((12, 5, 8), (40, 9, 12), (99, 12, 20), (700, 12, 40)), (3, 4, 4, 2))[0]
    highest = {name: factor if name in "klm" else small if name in "stu" else large for name in names}
    told = [condition for condition in variation.conditions if set(names).issuperset(condition[::2])]
    while True:
        values = {name: rng.randint(2, high) for name, high in highest.items()}
        for result, *step in variation.equations:
            values[result] = _compute(step, values)
            if not 1 <= values[result] <= 999:
                break
        else:
            if all(_compute(condition, values) >= 1 for condition in told):
                return values


def _compute(terms: Sequence[str], values: dict[str, int]) -> int:
    """The terms from left to right; 0 where a difference is below 1, or a quotient not whole or 1."""
    result = values[terms[0]]
    for operation, right in zip(terms[1::2], terms[2::2], strict=True):
        if operation == "/" and (result % values[right] or result == values[right]):
            return 0
        result = OPERATIONS[operation](result, values[right])
        if result < 1:
            return 0
    return result


def vary(variation: Variation, rng: random.Random) -> dict[str, str]:
    """A problem of this variation: question, reasoning, condensed_reasoning, answer."""
    needed = {name for _, left, _, right in variation.equations for name in (left, right)}
    facts = [
        text
        for text, always in variation.facts
        if always or needed.intersection(_NUMBER.findall(text)) or rng.random() < 0.5
    ]
    names = sorted(needed.intersection(_NUMBERS).union(_NUMBER.findall(" ".join([*facts, variation.question]))))
    numbers = _draw_numbers(variation, names, rng)
    slots = numbers | vocabulary(variation.kinds, variation.words, rng)
    facts = [expand(fact, rng).format_map(slots) for fact in facts]
    question = expand(variation.question, rng).format_map(slots)
    if question.startswith("how ") and rng.random() < 0.7:
        question = tell(facts, [], question, rng)
        if rng.random() < 0.2:  # SVAMP's own way: "If he ate 5 of them How many are left?"
            question = re.sub(r"(if [^.?]*), how ", r"\1 How ", question)
    else:
        question = ". ".join([*facts, question]) + "?"
    equations = [
        f"{numbers[left]} {operation} {numbers[right]} = {numbers[result]}"
        for result, left, operation, right in variation.equations
    ]
    answer = str(numbers[variation.equations[-1][0]])
    return {
        "question": polish(question),
        "reasoning": f"{'. '.join(equations)}. The answer is {answer}.",
        "condensed_reasoning": ", ".join(equations),
        "answer": answer,
    }


def arithmetic_variations(
    num_samples: int, seed: int = 0, steps: tuple[int, int] = (1, 3), split: str = "train"
) -> Iterator[dict[str, str]]:
    """Stories in the manner of SVAMP, each of a variation drawn evenly from those of the wanted length.

    Arguments, columns and errors as for [`semcot.synthetic.arithmetic_stories`]; the reasoning is the equations alone.
    """
    rng = random.Random(seed)
    variations = of_length(VARIATIONS, steps)
    yield from draw(lambda: vary(rng.choice(variations), rng), num_samples, split)
