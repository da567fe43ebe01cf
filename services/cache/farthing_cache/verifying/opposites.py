"""Words that turn a question round, and words of a kind of which a question is about one at a time. Lists of our own."""

from __future__ import annotations

from functools import lru_cache

from farthing_cache.verifying.stems import stem

_OPPOSITES = """
on/off enable/disable activate/deactivate increase/decrease increase/reduce increase/lower raise/lower raise/reduce raise/drop
grow/shrink add/remove add/delete add/subtract create/delete create/destroy build/destroy open/close start/stop start/end begin/end
start/finish first/last earliest/latest early/late before/after more/less more/fewer most/least maximum/minimum max/min up/down
upgrade/downgrade import/export upload/download buy/sell purchase/sell send/receive give/take give/receive encrypt/decrypt
encode/decode compress/decompress lock/unlock install/uninstall connect/disconnect subscribe/unsubscribe follow/unfollow
block/unblock mute/unmute show/hide in/out inside/outside indoor/outdoor above/below over/under left/right north/south east/west
northern/southern eastern/western hot/cold warm/cool heat/cool good/bad good/evil best/worst better/worse easy/hard easy/difficult
simple/complex fast/slow quick/slow long/short tall/short big/small large/small huge/tiny high/low higher/lower old/new old/young
older/newer older/younger rich/poor expensive/cheap true/false yes/no win/lose profit/loss gain/lose push/pull public/private
personal/business morning/evening day/night today/tomorrow today/yesterday yesterday/tomorrow past/future arrive/depart
arrival/departure borrow/lend include/exclude accept/reject accept/decline approve/reject allow/deny allow/block allow/forbid
allow/prohibit grant/deny grant/revoke possible/impossible legal/illegal safe/unsafe safe/dangerous secure/insecure
visible/invisible become/stay credit/debit login/logout incoming/outgoing inbound/outbound read/write input/output refund/charge
sender/recipient sender/receiver buyer/seller employer/employee teacher/student doctor/patient landlord/tenant together/separately
with/without for/against positive/negative plus/minus multiply/divide single/double single/multiple single/married pass/fail
succeed/fail success/failure strong/weak thick/thin wide/narrow deep/shallow heavy/light dark/light dark/bright bright/dim loud/quiet
loud/silent wet/dry clean/dirty full/empty hungry/full sweet/sour sweet/bitter smooth/rough soft/hard tight/loose sharp/blunt
alive/dead happy/sad happy/unhappy kind/cruel polite/rude brave/cowardly smart/dumb smart/stupid intelligent/stupid clever/stupid
wise/foolish honest/dishonest friendly/unfriendly friendly/hostile optimistic/pessimistic optimist/pessimist generous/stingy
humble/arrogant patient/impatient lazy/hardworking lazy/active active/passive active/inactive calm/anxious calm/nervous
confident/insecure confident/shy outgoing/shy introvert/extrovert introverted/extroverted healthy/sick healthy/unhealthy
beautiful/ugly attractive/ugly fat/thin fat/skinny overweight/underweight love/hate like/dislike like/hate trust/distrust
agree/disagree appear/disappear approve/disapprove obey/disobey remember/forget learn/forget laugh/cry ask/answer attack/defend
attract/repel freeze/melt freeze/thaw boil/freeze sink/float rise/fall sunrise/sunset ascend/descend ascending/descending
enter/exit enter/leave join/leave arrive/leave hire/fire earn/spend save/spend save/waste deposit/withdraw debt/credit
asset/liability income/expense gross/net taxable/nontaxable wholesale/retail fixed/variable temporary/permanent natural/artificial
real/fake genuine/fake original/copy manual/automatic online/offline online/in-person remote/onsite wired/wireless
front/back top/bottom head/tail begin/finish major/minor senior/junior host/guest parent/child ancestor/descendant victory/defeat
peace/war war/peace guilty/innocent plaintiff/defendant convict/acquit prosecution/defense vertical/horizontal row/column
clockwise/counterclockwise clockwise/anticlockwise convex/concave odd/even prime/composite numerator/denominator acid/base
solid/liquid proton/electron cation/anion anode/cathode male/female masculine/feminine mandatory/optional required/optional
synchronous/asynchronous sync/async static/dynamic mutable/immutable public/internal client/server local/remote local/global
frontend/backend merge/split push/pop encrypt/hash lossless/lossy sparse/dense supervised/unsupervised legal/unlawful
voluntary/involuntary voluntary/mandatory domestic/international domestic/foreign urban/rural ancient/modern theory/practice
cause/cure cause/prevent cause/effect benefit/drawback benefit/risk benefit/disadvantage advantage/disadvantage advantage/drawback
pro/con strength/weakness upside/downside optimist/cynic hero/villain friend/enemy ally/enemy angel/devil heaven/hell god/devil
summer/winter autumn/spring weekday/weekend upstairs/downstairs upstream/downstream hypertension/hypotension
hyperglycemia/hypoglycemia hyperthyroidism/hypothyroidism vein/artery inhale/exhale systolic/diastolic acute/chronic benign/malignant
underestimate/overestimate overcooked/undercooked overpaid/underpaid oversleep/undersleep ebb/flow lead/follow lead/trail
majority/minority plural/singular prefix/suffix synonym/antonym uppercase/lowercase upper/lower always/never always/sometimes
all/none everything/nothing everyone/nobody everybody/nobody somebody/nobody always/rarely often/rarely often/seldom
frequently/rarely near/far close/distant here/there now/then before/since until/after same/different
similar/different equal/unequal identical/different normal/abnormal common/rare common/uncommon popular/unpopular usual/unusual
important/trivial important/unimportant useful/useless harmful/harmless careful/careless hopeful/hopeless helpful/unhelpful
meaningful/meaningless painful/painless powerful/powerless fearful/fearless reversible/irreversible responsible/irresponsible
regular/irregular rational/irrational relevant/irrelevant moral/immoral mature/immature perfect/imperfect proper/improper
pure/impure probable/improbable logical/illogical literate/illiterate legible/illegible legitimate/illegitimate
absent/present absence/presence ability/inability forward/backward forwards/backwards fold/unfold zip/unzip tie/untie
cover/uncover load/unload pack/unpack plug/unplug mount/unmount register/unregister archive/unarchive pin/unpin hide/unhide
sign-in/sign-out wake/sleep asleep/awake attend/skip push/drag inflate/deflate inflation/deflation expand/contract expand/collapse
shrink/stretch zoom-in/zoom-out tighten/loosen harden/soften strengthen/weaken lengthen/shorten widen/narrow speed/slow
accelerate/decelerate brighten/darken boy/girl man/woman husband/wife mother/father mom/dad son/daughter brother/sister
uncle/aunt nephew/niece grandfather/grandmother grandson/granddaughter king/queen prince/princess actor/actress waiter/waitress
groom/bride gentleman/lady sir/madam boyfriend/girlfriend
bull/cow rooster/hen stallion/mare wizard/witch monk/nun widower/widow stepmother/stepfather
"""

# Words of a kind: a question names one of them, and another makes another question.
_KINDS = {
    "day": "monday tuesday wednesday thursday friday saturday sunday",
    "month": "january february march april june july august september october november december",
    "part of the day": "morning noon afternoon evening night midnight dawn dusk tonight",
    "day asked about": "today tomorrow yesterday",
    "season": "spring summer autumn winter fall",
    "rhythm": "hourly daily nightly weekly biweekly fortnightly monthly quarterly yearly annually annual biannual",
    "span of time": "second minute hour day week month quarter year decade century",
    "direction": "north south east west",
    "colour": "red orange yellow green blue purple violet pink brown black white grey gray silver gold beige cyan magenta turquoise",
    "size": "small medium large",
    "relative": "mother father mom dad parent son daughter brother sister sibling uncle aunt nephew niece cousin grandfather "
    "grandmother grandpa grandma husband wife boyfriend girlfriend fiance fiancee stepmother stepfather grandson granddaughter",
    "age": "baby toddler child kid teenager teen adult senior",
    "operating system": "windows macos mac osx linux ubuntu debian fedora centos android ios ipados chromeos freebsd",
    "device": "iphone ipad macbook laptop desktop tablet smartwatch router printer scanner television projector",
    "browser": "chrome firefox safari edge opera brave vivaldi",
    "programming language": "python java javascript typescript ruby php perl rust go golang kotlin swift scala haskell c c++ c# "
    "f# matlab julia lua fortran cobol elixir erlang clojure sql bash powershell dart",
    "library": "react angular vue svelte django flask fastapi rails laravel spring express pytorch tensorflow keras jax",
    "database": "mysql postgres postgresql sqlite mongodb redis cassandra oracle mariadb dynamodb elasticsearch",
    "cloud": "aws azure gcp heroku digitalocean",
    "kind of file": "pdf docx doc xlsx xls csv tsv json yaml xml html css jpg jpeg png gif svg webp bmp tiff mp3 mp4 wav flac avi "
    "mkv mov zip rar tar gz iso epub txt pptx ppt parquet",
    "online service": "facebook instagram twitter whatsapp telegram signal snapchat tiktok youtube linkedin reddit pinterest quora "
    "gmail outlook netflix spotify hulu amazon ebay etsy paypal venmo stripe google bing yahoo uber lyft airbnb slack zoom teams "
    "skype discord github gitlab bitbucket dropbox",
    "maker": "apple samsung google huawei xiaomi nokia sony lg dell hp lenovo asus acer microsoft intel amd nvidia toyota honda ford "
    "bmw audi mercedes volkswagen tesla nissan hyundai kia",
    "currency": "dollar euro pound yen yuan rupee franc krona peso rouble ruble real rand won bitcoin ethereum",
    "language": "english french german spanish italian portuguese dutch swedish norwegian danish finnish polish czech russian "
    "ukrainian greek turkish arabic hebrew persian hindi urdu bengali tamil telugu chinese mandarin cantonese japanese korean thai "
    "vietnamese latin hungarian romanian indonesian malay swahili",
    "nationality": "american british english scottish welsh irish french german spanish italian portuguese dutch belgian swiss "
    "austrian swedish norwegian danish finnish polish czech russian ukrainian greek turkish arab israeli iranian iraqi indian "
    "pakistani bangladeshi chinese japanese korean thai vietnamese filipino indonesian malaysian australian canadian mexican "
    "brazilian argentinian chilean peruvian colombian cuban egyptian nigerian kenyan ethiopian moroccan african asian european "
    "hungarian romanian bulgarian serbian croatian armenian georgian afghan syrian lebanese saudi",
    "religion": "christian muslim jewish hindu buddhist sikh atheist catholic protestant mormon agnostic christianity islam judaism "
    "hinduism buddhism",
    "country": "america usa england britain scotland wales ireland france germany spain italy portugal netherlands holland belgium "
    "switzerland austria sweden norway denmark finland poland czechia russia ukraine greece turkey israel iran iraq india pakistan "
    "bangladesh china japan korea thailand vietnam philippines indonesia malaysia singapore australia canada mexico brazil "
    "argentina chile peru colombia cuba egypt nigeria kenya ethiopia morocco hungary romania bulgaria serbia croatia armenia georgia "
    "afghanistan syria lebanon nepal iceland uk uae qatar taiwan zealand luxembourg estonia latvia lithuania slovakia slovenia",
    "place": "paris parma london berlin madrid rome milan lisbon amsterdam brussels zurich geneva vienna stockholm oslo copenhagen "
    "helsinki warsaw prague moscow kyiv athens istanbul tehran baghdad delhi mumbai bangalore chennai hyderabad kolkata pune karachi "
    "lahore dhaka beijing shanghai tokyo osaka kyoto seoul bangkok hanoi manila jakarta sydney melbourne toronto vancouver montreal "
    "chicago boston seattle houston dallas austin denver miami atlanta philadelphia texas california florida ohio arizona oregon "
    "nevada virginia cairo lagos nairobi dublin edinburgh manchester glasgow birmingham budapest bucharest dubai",
    "planet": "mercury venus earth mars jupiter saturn uranus neptune pluto moon sun",
    "animal": "dog cat horse cow pig sheep goat chicken duck rabbit hamster snake lizard turtle frog fish shark whale dolphin bird "
    "parrot eagle lion tiger bear wolf fox elephant monkey mouse rat spider ant bee crocodile deer",
    "sport": "football soccer basketball baseball tennis cricket hockey golf rugby volleyball swimming badminton boxing",
    "instrument": "guitar piano violin drum flute trumpet saxophone cello ukulele harp",
    "subject": "mathematics math physics chemistry biology history geography economics psychology philosophy law medicine literature",
    "part of the body": "head eye ear nose mouth tooth tongue throat neck shoulder arm elbow wrist hand finger thumb chest back "
    "stomach hip leg knee ankle foot toe heart lung liver kidney brain skin hair bone muscle",
    "illness": "diabetes cancer asthma flu cold covid malaria pneumonia arthritis migraine depression anxiety autism adhd "
    "hypertension anemia hepatitis tuberculosis measles dengue typhoid epilepsy",
    "medicine": "ibuprofen paracetamol acetaminophen aspirin naproxen amoxicillin penicillin metformin insulin codeine morphine "
    "warfarin statin xanax prozac zoloft",
    "food": "rice bread pasta potato chicken beef pork fish egg cheese milk butter sugar salt coffee tea water wine beer juice apple "
    "banana orange lemon tomato onion garlic",
    "metal": "iron steel copper aluminum aluminium gold silver platinum zinc lead tin titanium nickel",
    "vehicle": "car truck bus motorcycle bicycle bike train plane boat ship tram scooter van",
    "position": "ceo cfo cto coo",
    "degree": "bachelor master doctorate phd mba diploma",
    "exam": "gre gmat sat toefl ielts lsat mcat upsc neet",
    "meal": "breakfast lunch dinner brunch",
    "computer part": "cpu gpu ram ssd hdd keyboard monitor mouse webcam",
    "condition of a person": "dead alive famous evil gay racist immortal autistic trustworthy rich poor insane mad crazy blind deaf "
    "pregnant married single divorced retired",
}
_EXCEPTIONS = frozenset(("invaluable", "inflammable", "indifferent", "disease", "display", "distance", "discover", "infamous"))
_PREFIXES = ("un", "in", "im", "il", "ir", "dis", "non", "de", "mis")


@lru_cache(maxsize=1)
def opposites() -> dict[str, frozenset[str]]:
    """What each stem is the opposite of."""
    found: dict[str, set[str]] = {}
    for pair in _OPPOSITES.split():
        one, two = (stem(word) for word in pair.split("/"))
        found.setdefault(one, set()).add(two)
        found.setdefault(two, set()).add(one)
    return {word: frozenset(others) for word, others in found.items()}


@lru_cache(maxsize=1)
def kinds() -> dict[str, frozenset[str]]:
    """Which kinds each stem is of."""
    found: dict[str, set[str]] = {}
    for kind, words in _KINDS.items():
        for word in words.split():
            found.setdefault(stem(word), set()).add(kind)
    return {word: frozenset(names) for word, names in found.items()}


def are_opposites(one: str, two: str) -> bool:
    """Whether two stems are opposites, by the list (also as "cheaper", "cheapest") or by a prefix that denies."""
    if two in opposites().get(one, ()) or _positive(two) in opposites().get(_positive(one), ()):
        return True
    longer, shorter = (one, two) if len(one) > len(two) else (two, one)
    if len(shorter) < 4 or longer in _EXCEPTIONS or not longer.endswith(shorter):
        return False
    return longer[: -len(shorter)] in _PREFIXES


def _positive(word: str) -> str:
    """The positive degree of a comparative or superlative that is on the list, else the word."""
    for ending in ("est", "er"):
        short = word.removesuffix(ending)
        if short == word or len(short) < 3:
            continue
        for candidate in (short, short[:-1] + "y" if short[-1] in "iy" else short + "e", short[:-1]):
            if stem(candidate) in opposites():
                return stem(candidate)
    return word


def of_one_kind(one: str, two: str) -> str | None:
    """The kind that two different stems are both of, or None."""
    shared = kinds().get(one, frozenset()) & kinds().get(two, frozenset())
    return min(shared) if shared else None
