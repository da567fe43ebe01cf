"""Words that may stand for one another in a question. Lists of our own."""

from __future__ import annotations

from functools import lru_cache

from farthing_cache.verifying.stems import stem

_SYNONYMS = """
all every each; way method approach technique; quick fast rapid speedy; begin start commence; buy purchase; big large huge; small little tiny; intelligent
smart clever bright; happy joyful cheerful glad; sad unhappy gloomy; angry furious irate; afraid scared frightened fearful; brave
courageous; vocal outspoken; humble modest; rich wealthy affluent; poor needy; beautiful pretty gorgeous; ugly unattractive; kind nice
friendly; cruel mean unkind; strange weird odd peculiar; important crucial vital essential; wrong incorrect; right correct; difficult hard
tough; easy simple; help assist aid; fix repair mend; erase delete; remove eliminate rid; error bug issue problem trouble; movie film
picture; photo photograph pic picture image; car automobile auto; phone telephone cellphone smartphone mobile; job work employment
occupation; doctor physician; lawyer attorney; kid child; teacher instructor; student pupil; company firm; house home; city town; country
nation; illness disease sickness; medicine medication drug; tv television; pc computer; bike bicycle; plane airplane aeroplane aircraft;
shop store; trash garbage rubbish; holiday vacation; flat apartment; elevator lift; truck lorry; soccer football; internet web; site
website; mail email e-mail; picture image; password passcode; account profile; login signin logon; logout signout; change modify alter
edit; reset restore; cancel terminate; return refund reimburse; cost price fee charge; cheap inexpensive affordable; expensive costly
pricey; get obtain acquire receive; make create produce generate; build construct; show display; hide conceal; find locate; look search;
choose select pick; try attempt; want wish desire; need require; use utilize utilise employ; happen occur; allow permit let; forbid
prohibit ban; stop quit; finish end complete conclude; improve enhance better; increase boost raise; reduce decrease lower lessen; gain
acquire; earn make; defeat beat; grow develop; explain describe clarify; define definition meaning mean; difference distinction differ;
compare comparison; similar alike; reason cause; purpose aim goal; effect impact influence consequence; advantage benefit pro;
disadvantage drawback con downside; example instance; list enumerate; step procedure process; tip advice suggestion hint; guide tutorial;
rule regulation; law legislation; tax levy; salary pay wage; boss manager supervisor; employee worker staff; customer client; seller
vendor; trip journey travel; ticket fare; pain ache; exercise workout; food meal; learn study; teach train; write compose; speak talk;
tell inform; ask inquire; answer reply respond; call phone ring; send transmit; install setup; connect link; save store; copy duplicate;
move transfer; open launch; close shut; turn switch; activate enable; deactivate disable; function work operate; run execute; test check
verify; prove demonstrate; know understand; think believe consider; like enjoy; love adore; hate detest loathe; annoy bother irritate;
hire recruit; fire dismiss; attack assault; kill murder; die perish; marry wed; old aged elderly; young youthful; modern contemporary;
famous renowned well-known; true real genuine; fake counterfeit; legal lawful; illegal unlawful; safe secure; dangerous risky unsafe
hazardous perilous; sick ill unwell; tired exhausted weary; lonely lonesome; lazy idle; shy timid; confident assured; calm relaxed;
nervous anxious; honest truthful sincere; polite courteous; rude impolite; optimistic hopeful; religious pious spiritual; thankful grateful; generous charitable; curious inquisitive; funny humorous amusing; boring dull tedious; loyal faithful devoted; wise sage; cautious careful; ambitious driven; messy untidy; tidy neat; talkative chatty; lucky fortunate; stubborn obstinate;
optimal ideal; main primary principal chief; whole entire; enough sufficient; often frequently; rarely seldom; maybe perhaps possibly;
approximately roughly about around; usa us america; uk britain; max maximum; min minimum; info information; app application program
software; docs documentation; repo repository; config configuration; dir directory folder; param parameter argument; func function method;
db database; env environment; auth authentication; admin administrator; ad advertisement advert; exam examination test; math mathematics
maths; lab laboratory; uni university college; distance far; tall height; deep depth; long length; weigh old age; heavy wide width; colour
color; centre center; favourite favorite; organise organize; licence license; grey gray; mum mom mother; dad father; per each; speciality
specialty; entry record; section part; gather collect; supply provide offer give; keep retain maintain; obtain retrieve fetch; convert
transform; combine merge join; divide split separate; employ use; determine decide; specify indicate state; needed required necessary;
purpose use; variety kind type sort; amount quantity number; latest newest recent; previous prior earlier; following next; whole full;
additional extra more further; suitable appropriate; sea ocean; everyday daily; popular famous; formula equation; overcome remove; stay
remain keep; guarantee ensure; gain increase improve; acquire buy; qualified professional; top best; utilize use; avert avoid prevent;
lengthy long; vanish disappear; wrongly incorrectly; wash clean; scrub clean; cook prepare prep; sleep slumber; cry weep; smell odor
odour; quarrel argue; cheat deceive; trip tour; journey voyage; laptop notebook; invoice bill; parcel package; delivery shipping shipment;
deliver ship; purchase order; coupon voucher; discount rebate; subscription plan; renew extend; overdue late; loan credit; insurance
coverage; pension retirement; shares stocks; headache migraine; tablet pill; dose dosage; symptom sign; surgery operation; vaccine shot
jab vaccination; fever temperature; cure treat heal treatment remedy; contract agreement; court tribunal; sue litigate; landlord owner;
tenant renter; rent lease; luggage baggage; grade mark score; homework assignment; lecture class lesson; essay composition; scholarship
bursary; semester term; kindergarten preschool; crash freeze; slow sluggish; battery accumulator; screen monitor display; wifi wi-fi
wireless; router modem; bug defect; array list; string text; loop iteration iterate; sort order; directory folder; deploy release;
argument parameter; exception error; allergic allergy; pregnant expecting; baby infant newborn; elderly senior; cab taxi; film movie;
cookie biscuit; fall autumn; pants trousers; gasoline petrol gas; beginner novice; expert specialist professional; opinion view thought;
reply response
"""


@lru_cache(maxsize=1)
def _groups() -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for number, group in enumerate(_SYNONYMS.split(";")):
        for word in group.split():
            found.setdefault(stem(word), set()).add(f"{number}")
    return {word: frozenset(numbers) for word, numbers in found.items()}


def are_synonyms(one: str, two: str) -> bool:
    """Whether two stems may stand for one another."""
    return one == two or bool(_groups().get(one, frozenset()) & _groups().get(two, frozenset()))


def nearly_spelled(one: str, two: str) -> bool:
    """Whether two words differ so little that one may be the other misspelled: one letter of at least six, the first never."""
    if min(len(one), len(two)) < 6 or abs(len(one) - len(two)) > 1 or one[0] != two[0] or max(len(one), len(two)) > 40:
        return False
    begin = 0
    while begin < min(len(one), len(two)) and one[begin] == two[begin]:
        begin += 1
    if one[begin:] == two[begin + 1 :] or one[begin + 1 :] == two[begin:] or one[begin + 1 :] == two[begin + 1 :]:
        return True
    return one[begin : begin + 2] == two[begin : begin + 2][::-1] and one[begin + 2 :] == two[begin + 2 :]
