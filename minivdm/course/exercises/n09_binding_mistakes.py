"""Wrong counts of shells that wear what belongs to others, and what to say to each."""

from minivdm.course.exercise import Mistake


def _count(asked, seen, wrong, default=None):
    """How often `wrong` holds, of what was asked for here, what is seen here, and the other shells of the prompt."""
    total = 0
    for place, shell in asked.items():
        others = [other for there, other in asked.items() if there != place]
        total += int(wrong(shell, seen.get(place, default or shell), others))
    return total


def _borrowed(shell, found, others):
    return sum(found[i] != shell[i] and found[i] in [other[i] for other in others] for i in range(2))


def _place_or_error(asked, seen):
    return sum(
        _borrowed(shell, seen[place], [other for there, other in asked.items() if there != place]) > 0
        for place, shell in asked.items()
    )


BINDING_ERRORS = (
    Mistake(
        "every error counted",
        lambda asked, seen: _count(asked, seen, lambda shell, found, others: found != shell),
        "You count every shell that is not as asked for.",
        "A green shell where nobody asked for green is an error, but not a mix-up: its colour belongs to no other "
        "shell.",
        "whose colour could green have been?",
    ),
    Mistake(
        "attributes counted",
        lambda asked, seen: _count(asked, seen, _borrowed),
        "A shell with both colour and shape of another counts twice in your sum.",
        "The question is how many shells are mixed up, not how many words: each counts at most once.",
        "can a prompt of two shells have more than two mixed-up shells?",
    ),
    Mistake(
        "whole shells only",
        lambda asked, seen: _count(asked, seen, lambda shell, found, others: found != shell and found in others),
        "You count a shell only when colour and shape both come from one other shell.",
        "Mostly it is the colour alone that went astray: a blue peony where a red peony and a blue ring were asked "
        "for.",
        "is a blue peony, in that prompt, right?",
    ),
    Mistake(
        "right ones counted too",
        lambda asked, seen: _count(
            asked, seen, lambda shell, found, others: any(found[i] in [other[i] for other in others] for i in range(2))
        ),
        "You count shells that are right, when another shell has the same colour or shape.",
        "Two shells may both be red. What stands here as asked for is no error, whoever else has it.",
        "does your function ask what was wanted at this place?",
    ),
    Mistake(
        "a missing shell breaks it",
        _place_or_error,
        "Your function breaks when a place is empty: a shell that was asked for is not in `seen`.",
        "A missing shell is another kind of failure. It is no mix-up and counts nothing here.",
        "what does `seen.get(place)` return for an empty place?",
    ),
    Mistake(
        "a missing shell counted",
        lambda asked, seen: _count(
            asked, seen, lambda shell, found, others: found == "gone" or _borrowed(shell, found, others), "gone"
        ),
        "You count a shell that is missing as mixed up.",
        "Binding is about shells that are there in the right place with somebody else's attributes.",
        "what colour has a shell that is not there?",
    ),
    Mistake(
        "colours only",
        lambda asked, seen: _count(
            asked, seen, lambda s, found, others: found[0] != s[0] and found[0] in [other[0] for other in others]
        ),
        "You look at colours and never at shapes.",
        "A shape can go astray as well: a red ring where a red peony and a blue ring were asked for.",
        "what does your function say to two peonies, or to two rings?",
    ),
    Mistake(
        "places not compared",
        lambda asked, seen: sum(shell not in asked.values() for shell in seen.values()),
        "You count the shells that nobody asked for, wherever they are.",
        "Two whole shells that changed places are both in the prompt, and both wrong; a stray shell is no mix-up.",
        "does your function look at a single place?",
    ),
)
