"""What synthetic questions are made of: things that people do, ask for and wonder about, with other words for the same. All of our own.

A line of `ACTIONS` is: field | other verbs for one deed | other names of its object | additions each of which makes another question.
"""

from __future__ import annotations

ACTIONS = """
support | reset, recover | my password, the password of my account | for a guest account, without my old phone, on behalf of a colleague
support | cancel, call off | my subscription, my plan | after the trial, for the whole team, without losing my files
support | change, update | my billing address, the address on my bills | for past invoices, in bulk, through the api
support | delete, erase, remove | my account, my user account | without an email, of a deceased person, but keep my reviews
support | download, save, get | my invoice, a copy of my invoice | as a zip archive, for last year, without signing in
support | contact, reach, get in touch with | customer support, the support team | outside office hours, by fax, in welsh
support | invite, add | a colleague, a coworker | as a guest, from another company, with a temporary role
support | rename, change the name of | a workspace, my workspace | that is archived, shared with clients, by script
support | restore, bring back | a deleted file, a file that was deleted | from a backup tape, after thirty days, of another user
support | report, flag | a bug, a software error | anonymously, in the beta version, by phone
commerce | return, send back | a pair of shoes, shoes that i bought | without a receipt, bought in a sale, from abroad
commerce | track, follow, trace | my parcel, my package | inside a warehouse, without a tracking code, sent by a friend
commerce | pay for, settle | my order, my purchase | in instalments, with store credit, on delivery
commerce | redeem, use | a gift card, a gift voucher | that has expired, in an outlet store, for shipping fees
commerce | compare, weigh up | mortgage offers, offers for a mortgage | with a broker, for a holiday home, as a freelancer
commerce | sell, get money for | my used furniture, my old furniture | at an auction, to a museum, without photos
commerce | order, purchase, buy | spare parts, replacement parts | for a vintage model, wholesale, made of titanium
commerce | negotiate, bargain over | the price of a car, the cost of a car | at a charity sale, for a fleet, by letter
travel | book, reserve | a train ticket, a ticket for the train | with a bicycle, for a group of children, in a sleeper coach
travel | renew, extend | my passport, my travel passport | while living abroad, for an infant, within a day
travel | pack, prepare | a suitcase, my suitcase | for a desert trek, with fragile gifts, without folding anything
travel | avoid, get around | jet lag, feeling jet lagged | as a pilot, without sleeping pills, on short trips
travel | find, look for | a cheap hotel, an inexpensive hotel | near a stadium, that takes pets, with a sauna
travel | hire, rent | a car, an automobile | with a trailer, under the age of twenty, for a film shoot
travel | cross, get over | the border, the frontier | on a horse, with a drone, at a closed checkpoint
travel | apply for, request | a visa, an entry visa | as a journalist, with a criminal record, for a stopover
medicine | treat, relieve | a sore throat, a throat that hurts | in a newborn, during chemotherapy, with herbs only
medicine | lower, reduce, bring down | my cholesterol, my cholesterol level | while pregnant, without statins, in a month of fasting
medicine | heal, get rid of | a mouth ulcer, an ulcer in my mouth | under dentures, caused by braces, in toddlers
medicine | measure, take | blood pressure, my blood pressure | on the ankle, after a transplant, underwater
medicine | store, keep | insulin, my insulin | on a camping trip, in a broken fridge, for a cat
medicine | remove, take out | a splinter, a splinter from a finger | near the eye, made of glass, with magnets
medicine | prevent, avoid | sunburn, getting sunburnt | on a glacier, through a window, with tinted lotion
medicine | recover from, get over | the flu, influenza | with a heart condition, in a care home, before a race
finance | open, set up | a savings account, an account for savings | for a minor, without an address, in a foreign currency
finance | file, submit | my tax return, a tax return | after a divorce, for a dead relative, on paper
finance | improve, raise | my credit score, my credit rating | as a refugee, after bankruptcy, without any card
finance | invest in, put money into | index funds, funds that follow an index | through a trust, with borrowed money, inside a pension
finance | dispute, contest | a card payment, a payment on my card | made in cash, older than a year, by an heir
finance | calculate, work out | compound interest, the compound interest | with leap years, by hand, on a negative balance
finance | transfer, move, send | money abroad, money to another country | to a prisoner, without fees, in bullion
finance | claim, get back | travel expenses, the cost of travel | as a volunteer, from two employers, without tickets
code | sort, order | a list, a list of values | in place, by two keys, with a custom collation
code | parse, read | a json file, a file with json | with comments, larger than memory, inside a macro
code | reverse, turn round | a string, a text string | with combining accents, recursively, in constant space
code | merge, combine | two dictionaries, a pair of dictionaries | with nested keys, keeping duplicates, across processes
code | debug, find errors in | a shell script, a script for the shell | that runs at boot, inside a container, without output
code | undo, revert | the last commit, my latest commit | that was pushed, with a merge, on a protected branch
code | rename, give another name to | a column, a table column | with foreign keys, on a live server, in every schema
code | speed up, accelerate | a slow query, a query that is slow | on a view, with window functions, without an index
code | deploy, release | a web application, a web app | behind a proxy, to a submarine, with no downtime
code | write, create | a unit test, a test for a unit | for legacy code, with random input, that needs root
law | break, end | a lease, a rental lease | because of noise, with a roommate, in a historic building
law | contest, challenge | a will, a testament | written abroad, after probate, without a lawyer
law | register, file | a trademark, a trade mark | for a sound, as a charity, that has lapsed
law | sue, take to court | a neighbour, my neighbour | for libel, from abroad, in a class action
law | obtain, get | a restraining order, an order of restraint | against a company, without evidence, at the weekend
law | appeal, contest | a parking fine, a fine for parking | for a hearse, on private land, after paying
schooling | learn, study | calculus, differential calculus | in a month, as a hobby, through music
schooling | write, compose | a cover letter, a letter of application | for an internship, without experience, in verse
schooling | memorise, learn by heart | vocabulary, new words | of a dead language, for a quiz show, while jogging
schooling | prepare for, get ready for | an oral exam, an exam that is oral | in chemistry, with a stutter, overnight
schooling | cite, quote | a website, a web site | without an author, in a patent, that is offline
schooling | teach, explain | fractions to a child, fractions to kids | with cooking, over the radio, who is blind
schooling | apply for, ask for | a scholarship, a bursary | as a mature student, in athletics, from an employer
devices | pair, connect | my headphones, my headset | with two sources, on an aeroplane, over a cable
devices | clean, wipe | my keyboard, the keyboard | after a coffee spill, with ultrasound, without unplugging it
devices | charge, load | my phone, my mobile | with a car battery, from solar panels, in the snow
devices | mount, hang | a television on the wall, a tv on a wall | above a fireplace, in a caravan, made of plaster
devices | repair, fix, mend | a cracked screen, a screen that is cracked | under warranty, with nail polish, on a watch
devices | update, bring up to date | the firmware, my firmware | without internet, of a drone, from a memory card
devices | extend, prolong | battery life, the life of my battery | in cold weather, of a hearing aid, during video calls
home | cook, prepare | brown rice, wholegrain rice | at high altitude, in a thermos, for fifty guests
home | remove, get out | a wine stain, a stain of wine | from silk, with baking soda, after washing
home | unblock, clear | a sink, a blocked sink | with grease, in winter, without chemicals
home | grow, raise | tomatoes, tomato plants | on a balcony, under lamps, in a greenhouse
home | sharpen, hone | a kitchen knife, a knife for the kitchen | with a serrated edge, on a brick, left-handed
home | paint, coat | a wooden fence, a fence of wood | in the rain, with a roller, over varnish
home | train, teach | a puppy, a young dog | to swim, in a flat, that is deaf
work | ask for, request | a raise, a pay rise | during probation, in writing, as a contractor
work | hire, recruit, take on | a data analyst, an analyst for data | in another country, for a weekend, without interviews
work | run, hold, lead | a meeting, a team meeting | across time zones, standing up, with sixty people
work | resign from, quit, leave | my job, my position | during parental leave, without notice, before a bonus
work | write, draft | a project plan, a plan for a project | for a grant, on one page, with a union
"""

# things with what they do or are, asked why, when, where, who, how much
FACTS = """
sourdough bread | rises, grows, goes up | sour, tasty, cheap
my old laptop | overheats, gets hot, runs hot | slow, repairable, heavy
the city library | closes, shuts | quiet, public, large
a diesel engine | knocks, rattles | efficient, noisy, durable
the northern ferry | stops running, ceases to run | late, crowded, electric
a cactus | flowers, blooms | edible, hardy, poisonous
the pension fund | pays out, makes payments | solvent, private, audited
the morning express | leaves, departs, sets off | punctual, full, direct
a cold sore | itches, tingles | contagious, harmless, painful
the membership fee | goes up, rises, increases | refundable, monthly, deductible
the office printer | jams, gets stuck | wireless, broken, new
a pull request | gets merged, is merged | reviewed, stale, risky
the night market | opens, starts | outdoors, popular, safe
a fixed deposit | matures, falls due | insured, taxable, transferable
the school canteen | serves lunch, gives out lunch | vegetarian, subsidised, closed
the backup server | restarts, reboots | encrypted, redundant, offline
an oak tree | loses its leaves, drops its leaves | protected, hollow, ancient
the emergency clinic | admits patients, takes in patients | free, private, staffed
a rental contract | ends, expires, runs out | binding, digital, negotiable
the water heater | leaks, drips | electric, certified, dangerous
"""

TERMS = (
    "amortisation, photosynthesis, a torque wrench, escrow, recursion, a quorum, tinnitus, inflation, a webhook, osmosis, habeas corpus, "
    "a mutex, arbitrage, a subpoena, plaque, dividend yield, polymorphism, a food desert, standard deviation, an annuity, catharsis, "
    "a load balancer, friction, an easement, anaphylaxis, a balance sheet, mitosis, a deductible, haggis, latency"
).split(", ")
RELATED = (
    "sea salt and table salt, a lease and a licence, a virus and a bacterium, a stack and a queue, gross pay and net pay, a coach and a "
    "tutor, jam and jelly, a process and a thread, a moth and a butterfly, a loan and a grant, a comet and an asteroid, a fox and a wolf"
).split(", ")
PEOPLE = (
    "Marlene Voss, Idris Penhaligon, Tilda Okafor, Bram Castellan, Yuki Arden, Rosalind Mbeki, Emil Sandoval, Petra Lindqvist, "
    "Oswin Tarrant, Leila Montrose, Gideon Falk, Noor Haddad, Casimir Boyle, Anouk Desrosiers, Thandi Walcott, Viggo Marchetti"
).split(", ")
TOWNS = (
    "Porto, Graz, Bergen, Tampere, Ghent, Leeds, Utrecht, Malmo, Turin, Lyon, Bilbao, Krakow, Split, Varna, Aarhus, Cork, Bath, Basel, "
    "Parma, Padua, Dresden, Leipzig, Salta, Cusco, Quito, Merida, Accra, Dakar, Kochi, Jaipur, Busan, Sapporo, Hobart, Perth, Halifax"
).split(", ")
DEEDS = (
    "praise/praised, sue/sued, hire/hired, follow/followed, visit/visited, insult/insulted, marry off/married off, warn/warned, "
    "replace/replaced, thank/thanked, tutor/tutored, blame/blamed, rescue/rescued, invite/invited, betray/betrayed, paint/painted"
).split(", ")
TRADES = (
    "baker, welder, notary, surgeon, beekeeper, plumber, sculptor, referee, librarian, cellist, geologist, midwife, tailor, roofer, "
    "translator, astronomer, locksmith, butcher, optician, florist"
).split(", ")
TRAITS = "tall/taller, patient/more patient, loud/louder, careful/more careful, quick/quicker, generous/more generous".split(", ")
TURNED = (
    "tighten/loosen the valve, raise/lower the blinds, fasten/unfasten the harness, mute/unmute the microphone, archive/unarchive a chat, "
    "expand/collapse the menu, thicken/thin the sauce, inflate/deflate the raft, arm/disarm the alarm, heat/cool the greenhouse, "
    "lengthen/shorten a skirt, load/unload the lorry, enable/disable notifications, encrypt/decrypt a folder, accept/decline an offer, "
    "attach/detach the trailer, stiffen/soften leather, engage/release the brake, speed up/slow down playback, upgrade/downgrade my tier, "
    "turn on/turn off dark mode, zoom in on/zoom out of a map, check in to/check out of the hotel, plug in/unplug the lamp"
).split(", ")
JUDGED = (
    "safe/dangerous, legal/illegal, healthy/unhealthy, polite/rude, common/rare, wise/foolish, fair/unfair, normal/abnormal, "
    "useful/useless, possible/impossible, necessary/unnecessary, honest/dishonest"
).split(", ")
DOINGS = (
    "swim after a meal, drive in sandals, keep bees in a garden, lend money to a friend, sleep with the window open, drink rainwater, "
    "record a lecture, feed bread to ducks, ride a scooter on the pavement, reheat mushrooms, work from a hammock, prune roses in autumn"
).split(", ")
MEASURES = (
    "mg of magnesium:take:a day, km:run:in one go, litres of water:drink:at once, kg:lift:at the gym, gb of data:use:on a phone, "
    "minutes:park:at the kerb, dollars:carry:in cash, degrees:bake bread at:in an oven, metres:dive:without a tank, hours:fast:in a row"
).split(", ")
OTHER_UNITS = {
    "mg": "grams", "km": "miles", "litres": "gallons", "kg": "pounds", "gb": "mb", "minutes": "hours", "dollars": "euros",
    "metres": "feet", "hours": "days", "degrees": "percent",
}
EVENTS = (
    "the exam, surgery, a long flight, the merger, my wedding, a marathon, the harvest, retirement, the software update, moving house, "
    "the interview, a blood test"
).split(", ")
THINGS_TO_DO = "eat, drive, pay tax, give notice, take vitamins, exercise, post photos, travel, sign papers, drink coffee".split(", ")
