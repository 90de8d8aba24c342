"""Text features: words with their negation marked, and the runs of words and characters that a linear model counts."""

import re
from collections.abc import Iterator, Sequence

TOKEN = re.compile(r"[:;=8xX]['^-]?[)(\]\[dDpPoO/\\|*3]+(?!\w)|<3|[)(]['-]?[:;=]|[a-z]+(?:'[a-z]+)*|[!?]+|\.\.+|[^\sa-z]", re.IGNORECASE)
ELONGATED = re.compile(r"(.)\1{2,}")
NEGATION = re.compile(
    r"not|no|never|cannot|cant|dont|doesnt|didnt|isnt|wasnt|wont|wouldnt|couldnt|shouldnt|arent|aint|.*n't|without|nothing|nor|neither"
    r"|none|nobody|hardly|barely|scarcely|lack|lacks|lacking"
)
NEGATION_ENDS = re.compile(r"[.,;:!?()\"-]|(?:but|although|though)$")
NEGATION_SCOPE = 4  # words
NEGATED = "~"
BEGINNING = 5  # letters; a crude stem, so that "delightful" and "delights" share their runs of words
LONGEST_WORD = 40  # characters; the rest of a word is ignored


def tokens(text: str) -> list[str]:
    """Return words, emoticons and punctuation in order; words lower-cased, "~" in front of those that a negation reaches."""
    found, reach = [], 0
    for match in TOKEN.findall(text.replace("’", "'").replace("`", "'")):
        token = ELONGATED.sub(r"\1\1", match[:LONGEST_WORD])
        token = token.lower() if token[0].isalpha() else token
        if NEGATION.fullmatch(token):
            reach = NEGATION_SCOPE
        elif NEGATION_ENDS.match(token):
            reach = 0
        elif reach > 0:
            token, reach = NEGATED + token, reach - 1
        found.append(token)
    return found


def plain(token: str) -> str:
    """Return a token without the mark of a negation."""
    return token[1:] if token[0] == NEGATED and len(token) > 1 else token


def ngrams(found: Sequence[str]) -> Iterator[str]:
    """Yield the runs of one to three tokens cut to their beginnings, "<" and ">" standing for the ends of the text in the longer ones."""
    beginnings = [token[: BEGINNING + token.startswith(NEGATED)] for token in found]
    framed = ["<", *beginnings, ">"]
    yield from beginnings
    for n in (2, 3):
        yield from (" ".join(framed[i : i + n]) for i in range(len(framed) - n + 1))


def character_ngrams(token: str) -> Iterator[str]:
    """Yield the runs of two to five characters of a token between spaces, marked by "~" if the token is."""
    word = plain(token)
    mark, padded = token[: len(token) - len(word)], f" {word} "
    for n in range(2, 6):
        if len(padded) <= n:
            yield mark + padded
            return
        yield from (mark + padded[i : i + n] for i in range(len(padded) - n + 1))
