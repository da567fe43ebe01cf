"""Stems: forms of a word are one word. A few rules and the irregular forms that questions use; consistent rather than pretty."""

from __future__ import annotations

from functools import lru_cache

_IRREGULAR = """
be am is are was were been being; have has had having; do does did done doing; go goes went gone; get gets got gotten getting; buy bought;
sell sold; send sent; spend spent; lend lent; build built; lose lost losing; win won winning; find found finding; founded founding; make
made making; take took taken taking; give gave given giving; get got; eat ate eaten; drink drank drunk; write wrote written writing; read
reading; speak spoke spoken; break broke broken; choose chose chosen choosing; steal stole stolen; freeze froze frozen; drive drove driven
driving; ride rode ridden riding; rise rose risen rising; hide hid hidden hiding; bite bit bitten; beat beaten; see saw seen; know knew
known; grow grew grown; throw threw thrown; fly flew flown flies; draw drew drawn; show shown; tell told; say said; pay paid; lay laid;
keep kept; sleep slept; feel felt; leave left leaving; meet met; lead led; feed fed; hold held; hear heard; stand stood; understand
understood; think thought; bring brought; catch caught; teach taught; fight fought; seek sought; begin began begun beginning; swim swam
swum swimming; sing sang sung; run ran running; come came coming; become became becoming; fall fell fallen; forget forgot forgotten;
forgive forgave forgiven; shoot shot; sit sat sitting; set setting; cut cutting; put putting; let letting; hit hitting; hurt hurting; cost
costing; quit quitting; mean meant; deal dealt; learn learnt; burn burnt; dream dreamt; wear wore worn; tear tore torn; swear swore sworn;
wake woke woken waking; shake shook shaken; bear bore born borne; sue sued suing; die died dying dies; lie lied lying lies; tie tied tying
ties; use used using uses; cause causes caused causing; child children; man men; woman women; person people persons; foot feet; tooth
teeth; mouse mice; wife wives; life lives; knife knives; leaf leaves; half halves; shelf shelves; self selves; datum data; criterion
criteria; medium media; index indices; matrix matrices; vertex vertices; analysis analyses; thesis theses; crisis crises; bus buses; gas
gases; lens lenses; process processes processed; address addresses addressed; strike struck; stick stuck; hang hung; dig dug; win won;
shine shone; bind bound; wind wound; grind ground; sue sues; owe owed owing owes; series series; species species; news news; always always; perhaps perhaps; thus thus; plus plus; minus minus; this this; its its; his his; yes yes; less less; unless unless; as as; us us; physics physics; mathematics mathematics math maths; economics economics; diabetes diabetes; windows windows; ios ios; macos macos; aws aws; css css; sms sms; gps gps; business businesses; during during; nothing nothing; something something; everything everything; anything anything; thing things; evening evenings; morning mornings; wedding weddings; building buildings; meeting meetings;
need needs needed; red red; bed beds; speed speeds; king kings; ring rings; thailand thailand; paris paris; texas texas; mars mars; venus venus; uranus uranus; netherlands netherlands; philippines philippines
"""
_VOWELS = frozenset("aeiouy")


@lru_cache(maxsize=1)
def _irregular() -> dict[str, str]:
    return {form: group.split()[0] for group in _IRREGULAR.split(";") for form in group.split()}


@lru_cache(maxsize=8192)
def stem(word: str) -> str:
    """The stem of a lower-case word."""
    known = _irregular().get(word)
    if known is not None:
        return _bare(known)
    if len(word) > 40 or not word.isascii():
        return word
    return _bare(_cut(word))


def _cut(word: str) -> str:
    if word.endswith("'s") and len(word) > 2:
        word = word[:-2]
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3:
        word = word[:-2] if word.endswith(("xes", "ches", "shes", "sses", "zes")) else word[:-1]
    for ending in ("ing", "ed"):
        rest = word[: -len(ending)]
        if word.endswith(ending) and len(rest) >= 3 and _VOWELS.intersection(rest):
            if rest.endswith("i"):
                return rest[:-1] + "y"
            if len(rest) == 3 and rest[1] in _VOWELS and rest[0] not in _VOWELS and rest[2] not in "wxyaeiou":
                return rest + "e"
            return rest[:-1] if rest[-1] == rest[-2] and rest[-1] not in "lsz" else rest
    return word


def _bare(word: str) -> str:
    """Without a silent e, so that "cause" and "caus(ing)" meet; i and y alike."""
    if len(word) > 4 and word.endswith("e") and not word.endswith("ee"):
        word = word[:-1]
    return word[:-1] + "y" if len(word) > 3 and word.endswith("i") else word
