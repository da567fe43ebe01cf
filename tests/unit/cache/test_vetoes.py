"""The rules that forbid two questions an answer in common, on pairs written for this table."""

from __future__ import annotations

import time

import pytest
from farthing_cache.verifying.vetoes import objection, read, verify
from hypothesis import given, settings
from hypothesis import strategies as st

APART = """
numbers differ | Is it safe to take 5 mg of melatonin? | Is it safe to take 50 mg of melatonin?
numbers differ | How long does it take to walk 5 km? | How long does it take to walk 5 miles?
numbers differ | What is 5% of 80? | What is 15% of 80?
numbers differ | How much tax do I pay on $400? | How much tax do I pay on €400?
numbers differ | How do I upgrade to Python 3.11? | How do I upgrade to Python 3.12?
numbers differ | Which trains leave at 5 am? | Which trains leave at 5 pm?
numbers differ | What happened on 3 May 1968? | What happened on 4 May 1968?
numbers differ | What happened on 3 May 1968? | What happened on 3 June 1968?
numbers differ | Can two people share one ticket? | Can three people share one ticket?
numbers differ | How do I invest ten thousand dollars? | How do I invest ten million dollars?
numbers differ | Is 2 + 3 a prime? | Is 2 * 3 a prime?
numbers differ | Is 3 < 4 in this ordering? | Is 3 > 4 in this ordering?
numbers differ | How tall was Henry VII? | How tall was Henry VIII?
numbers differ | What rent do I owe for 2 months? | What rent do I owe for 2 weeks?
numbers differ | Recipe for a dozen muffins | Recipe for two dozen muffins
another programming language | How do I use c++ templates? | How do I use c templates?
opposites | Turn on dark mode | turn off dark mode
opposites | How do I enable two-factor login? | How do I disable two-factor login?
opposites | How do I increase the font size? | How do I decrease the font size?
opposites | How do I install the plugin? | How do I uninstall the plugin?
opposites | Is it legal to record a call? | Is it illegal to record a call?
opposites | Where do I buy shares? | Where do I sell shares?
opposites | How can I gain weight? | How can I lose weight?
opposites | How do I follow a colleague? | How do I unfollow a colleague?
opposites | What are the advantages of leasing? | What are the disadvantages of leasing?
opposites | How do I import my contacts? | How do I export my contacts?
opposites | What is the maximum file size? | What is the minimum file size?
opposites | Who is the richest person in town? | Who is the poorest person in town?
opposites | Should I take the pill before meals? | Should I take the pill after meals?
opposites | What is the cheapest plan? | What is the most expensive plan?
opposites | Is the museum open today? | Is the museum open tomorrow?
opposites | How do I lock the screen? | How do I unlock the screen?
opposites | Does coffee raise blood pressure? | Does coffee lower blood pressure?
opposites | When does the sun rise? | When does the sun set and fall?
one is negated | Which foods should I eat with gout? | Which foods should I not eat with gout?
one is negated | Why is my card working? | Why isn't my card working?
opposites | Can I cancel without a fee? | Can I cancel with a fee?
one is negated | Who can see my profile? | Who can't see my profile?
one is negated | Why do people vote? | Why do people never vote?
one is negated | Is anyone allowed to park here? | Is nobody allowed to park here?
one is negated | How do I get spam mail? | How do I avoid getting spam mail?
one is negated | What happens if I pay rent late? | What happens if I do not pay rent late?
times differ | What can I claim before the policy starts? | What can I claim until the policy starts?
times differ | Is Ann a nurse? | Is Ann becoming a nurse?
times differ | Is Ann a nurse? | Did Ann use to be a nurse before?
times differ | Do they live in Leeds? | Do they still live in Leeds?
times differ | Who is the mayor? | Who was the mayor?
opposites | What changed since the update? | What changed before the update?
times differ | What is the weather next week? | What is the weather this week?
times differ | Did they play golf? | Did they used to play golf?
another person | Does he have to pay tax? | Does she have to pay tax?
another person | Where did she bury her treasure? | Where did they bury their treasure?
another person | If Tom and Eve split up, would her house be sold? | If Tom and Eve split up, would his house be sold?
another relative | Can my brother collect the parcel? | Can my cousin collect the parcel?
opposites | Can my husband use the ticket? | Can my wife use the ticket?
another place | what is the weather in paris | what is the weather in parma
names differ | How do I get to Tallford by train? | How do I get to Wallford by train?
names differ | When was Nora Quist born? | When was Dora Quist born?
names differ | What does Zentrix cost? | What does the Vantrix cost in Zentrix?
another country | Do I need a visa for Peru? | Do I need a visa for Chile?
another programming language | How do I sort a list in python? | How do I sort a list in ruby?
another operating system | How do I take a screenshot on ubuntu? | How do I take a screenshot on macos?
another kind of file | How do I open a csv file? | How do I open a xml file?
another language | How do I say hello in french? | How do I say hello in dutch?
another illness | What are the symptoms of measles? | What are the symptoms of dengue?
another medicine | Can I drink wine with ibuprofen? | Can I drink wine with amoxicillin?
another day | Are you open on monday? | Are you open on friday?
another month | What is in season in april? | What is in season in october?
times differ | What is in season in may? | What is in season in october?
another colour | Do you have the jacket in red? | Do you have the jacket in blue?
another animal | How often should I feed a hamster? | How often should I feed a turtle?
another currency | How many pesos is that in yen? | How many pesos is that in rubles?
another part of the body | Why does my knee hurt at night? | Why does my shoulder hurt at night?
another food | How do I cook rice? | How do I cook pasta?
another online service | How do I delete my reddit account? | How do I delete my spotify account?
another browser | How do I clear cookies in firefox? | How do I clear cookies in safari?
another rhythm | How do I bill customers weekly? | How do I bill customers yearly?
another instrument | How hard is it to learn the piano? | How hard is it to learn the violin?
another subject | Where can I study law? | Where can I study chemistry?
another sport | What are the rules of tennis? | What are the rules of golf?
another planet | How far away is neptune? | How far away is saturn?
another kind of question | How do I renew a passport? | When do I renew a passport?
another kind of question | Why do cats purr? | When do cats purr?
another kind of question | How do I renew a passport? | Why do I renew a passport?
another kind of question | Can I renew a passport? | How can I renew a passport?
another kind of question | Should I file a complaint? | Can I file a complaint?
another kind of question | Must I file a complaint? | Can I file a complaint?
another kind of question | How much does a visa cost? | How long does a visa take?
another kind of question | Who designed the bridge? | Why was the bridge designed?
another kind of question | Where is the head office? | When is the head office open?
another kind of question | How many seats does the hall have? | What is the hall?
roles differ | flights from oslo to rome | flights from rome to oslo
roles differ | Did Karen sue Frank? | Did Frank sue Karen?
roles differ | Is Karen taller than Frank? | Is Frank taller than Karen?
roles differ | How do I convert pdf to word? | How do I convert word to pdf?
roles differ | Was Karen hired by Frank? | Was Frank hired by Karen?
roles differ | Did Karen win the house? | Was Karen won by the house?
roles differ | Did the dog chase the cat? | Was the dog chased by the cat?
roles differ | Does Brenda owe Carl money? | Does Carl owe Brenda money?
roles differ | Does smoking follow stress? | Does stress follow smoking?
another scope | Which pages can guests see? | Which pages can only guests see?
another scope | Is Paula a pilot or a poet? | Is Paula simultaneously a pilot and a poet?
one is negated | Which plans include support? | Which plans except basic include support?
another word | Is Paula a pilot? | Is Paula a poet?
another word | Is the soup salty? | Is the soup vegan?
another word | Is cycling allowed in the park? | Is fishing allowed in the park?
too many other words | How do I export tasks? | How do I export archived tasks of guests in another workspace?
words differ | ¿Cómo puedo activar el modo oscuro? | ¿Cómo puedo desactivar el modo oscuro?
words differ | Wie kann ich das Konto löschen? | Wie kann ich das Konto öffnen?
words differ | как включить звук | как выключить звук
words differ | 如何打开深色模式 | 如何关闭深色模式
"""

TOGETHER = """
How do I reset my password? | How can I reset my password?
How do I reset my password? | What is the best way to reset a password?
How do I reset my password? | how to reset password
How do I reset my password? | Could you tell me how I can reset my password?
Please explain how to cancel my order | How do I cancel my order?
I want to know how to cancel an order | How can I cancel my order?
Where can I download my invoice? | Where can I download my invoices?
Is there a mobile app? | Do you have a mobile app?
Why isn't my printer working? | Why is my printer not working?
I can't log in to my account | I cannot log in to my account
What's the capital of Peru? | What is the capital of Peru?
What is the capital of Peru? | Which city is the capital of Peru?
How many days are in 2 weeks? | How many days are in two weeks?
How far is 1 km? | How far is 1,000 metres?
How far is 5 km? | How far is five kilometers?
What is 20% of 50? | What is 20 percent of 50?
How do I invest $5000? | How do I invest 5,000 dollars?
What opens at 5 pm? | What opens at 17:00?
What happened on May 3, 1968? | What happened on 3 May 1968?
Can I eat twelve eggs? | Can I eat a dozen eggs?
Is 1500 g too heavy? | Is 1.5 kg too heavy?
How do I spend a hundred thousand euros? | How do I spend 100,000 euros?
Is it not dangerous to swim here? | Is it safe to swim here?
How can I become less pessimistic? | How can I become more optimistic?
Is the water unsafe? | Is the water not safe?
How do I fix this error? | How do I repair this error?
Where can I buy a cheap bike? | Where can I purchase an affordable bicycle?
How do I start a company? | How do I begin a company?
Is Karen really a lawyer? | Is Karen a lawyer?
Is the train actually late? | Is the train late?
Is Karen currently at home? | Is Karen at home?
Does Karen trust Frank? | Is Frank trusted by Karen?
Did the jury acquit the banker? | Was the banker acquitted by the jury?
Did Karen steal the ring? | Was the ring stolen by Karen?
Who wrote the report? | The report was written by whom?
Is Karen married to Frank? | Is Frank married to Karen?
Is Oslo far from Bergen? | Is Bergen far from Oslo?
What is the difference between a virus and a worm? | What is the difference between a worm and a virus?
Which is better, tea or coffee? | Which is better, coffee or tea?
Is Paula a pilot and a poet? | Is Paula a poet and a pilot?
Is Karen a Kenyan judge? | Is Karen a judge and Kenyan?
Who do critics think is the best painter? | Who is the best painter according to critics?
In a microwave, how do I cook rice? | How do I cook rice in a microwave?
What is the reason for inflation? | Why is there inflation?
What time does the shop close? | When does the shop close?
What is the price of a stamp? | How much does a stamp cost?
How come the sky is blue? | Why is the sky blue?
What is the height of the tower? | How tall is the tower?
Is it possible to change my seat? | Can I change my seat?
Is there a way to change my seat? | How can I change my seat?
Are dogs allowed on the train? | Can dogs travel on the train?
how do i file my taxes | How do I file my taxes?
How do I organise my files? | How do I organize my files?
What colour is a ruby gem? | What color is a ruby gem?
How do I connect to wi-fi? | How do I connect to wifi?
How do I find my e-mail settings? | How do I find my email settings?
How do I log in? | How do I login?
What is the definition of osmosis? | What is the meaning of osmosis?
What are the side effects of statins? | What are statins' side effects?
How did the war begin? | How did the war start?
What is my account balance? | What's my account balance?
What is a remarkable recieve error? | What is a remarkable receive error?
¿Cómo puedo activar el modo oscuro? | ¿cómo puedo activar el modo oscuro
How is whisky made? | How do they make whisky?
"""


def rows(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split(" | ")] for line in table.strip().splitlines()]


@pytest.mark.parametrize(("reason", "one", "other"), rows(APART))
def test_questions_that_need_another_answer_are_kept_apart_and_the_reason_is_told(reason: str, one: str, other: str) -> None:
    assert (verify(one, other).same, verify(one, other).reason) == (False, reason)
    assert verify(other, one) == verify(one, other)


@pytest.mark.parametrize(("one", "other"), rows(TOGETHER))
def test_the_same_question_in_other_words_meets_no_objection(one: str, other: str) -> None:
    assert objection(read(one), read(other)) is None
    assert objection(read(other), read(one)) is None


def test_the_table_holds_at_least_150_pairs_of_both_kinds() -> None:
    assert len(rows(APART)) + len(rows(TOGETHER)) >= 150


WORDS = st.sampled_from(
    "how do i turn on off the light not never 5 50 mg km by from to Paris is was Karen Frank trusted than before after and or he she "
    "more less happy sad only can't ¿qué 日本 c++ < > % $".split()
)
TEXTS = st.lists(WORDS, max_size=14).map(" ".join) | st.text(max_size=60)


@settings(max_examples=300, deadline=None)
@given(TEXTS, TEXTS)
def test_the_order_of_two_texts_never_matters(one: str, other: str) -> None:
    assert verify(one, other) == verify(other, one)


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_a_text_is_never_kept_apart_from_itself(text: str) -> None:
    assert verify(text, text).same
    assert verify(text, f"  {text} ").same


@pytest.mark.parametrize(
    "unit",
    [
        "a",
        "a ",
        "1,",
        "1.",
        "not ",
        "by was ",
        "it's'",
        "from a to b ",
        "((((",
        "A' ",
        "é ",
        "twenty one hundred ",
        "x_y ",
        "$5 ",
    ],
)
def test_hostile_texts_are_read_in_linear_time(unit: str) -> None:
    """Forty times the text takes at most some hundred times as long, however it is made; in truth it is cut long before."""
    short, long = unit * (2_000 // len(unit)), unit * (80_000 // len(unit))
    took = []
    for text in (short, long):
        read.cache_clear()
        began = time.process_time()
        objection(read(text + "x"), read(text + "y"))
        took.append(time.process_time() - began)
    assert took[1] < max(0.05, 100 * took[0])


def test_what_is_too_long_to_read_whole_is_not_taken_for_the_same() -> None:
    text = "how do i sort a list " * 600
    assert verify(text + "upwards", text + "sideways").reason == "too long to compare"
    assert verify(text, text).same
