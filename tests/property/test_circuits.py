"""Circuits as a state machine: whatever happens, a circuit that is open lets nobody through, tries one at a time, and comes back."""

from __future__ import annotations

from farthing_router.deployments.circuits import Circuit, CircuitState, CircuitTerms
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

TERMS = CircuitTerms()


class CircuitMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.circuit = Circuit(TERMS)
        self.now_s = 0.0
        self.calls: list[bool] = []
        self.last_failure_s = 0.0

    @rule(seconds=st.floats(0.0, 400.0))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds

    @rule()
    def a_call_begins(self) -> None:
        if self.circuit.lets_through(self.now_s):
            self.calls.append(self.circuit.begin(self.now_s))

    @rule(data=st.data(), ending=st.sampled_from(["succeeded", "failed", "at once", "undecided"]))
    def a_call_ends(self, data: st.DataObject, ending: str) -> None:
        if not self.calls:
            return
        probe = self.calls.pop(data.draw(st.integers(0, len(self.calls) - 1)))
        if ending == "succeeded":
            self.circuit.succeeded(self.now_s, probe=probe)
        elif ending == "undecided":
            self.circuit.undecided(probe=probe)
        else:
            self.last_failure_s = self.now_s
            closed = self.circuit.state(self.now_s) is CircuitState.CLOSED
            self.circuit.failed(self.now_s, probe=probe, reason="no", at_once=ending == "at once")
            if probe or (closed and ending == "at once"):
                assert not self.circuit.lets_through(self.now_s)

    @invariant()
    def at_most_one_probe_is_under_way(self) -> None:
        assert sum(self.calls) <= 1

    @invariant()
    def an_open_circuit_lets_nobody_through_and_says_why(self) -> None:
        state = self.circuit.state(self.now_s)
        if state is CircuitState.OPEN:
            assert not self.circuit.lets_through(self.now_s)
            assert self.circuit.reason
        if state is CircuitState.CLOSED:
            assert self.circuit.lets_through(self.now_s)
            assert not self.circuit.reason

    @invariant()
    def it_tries_again_after_a_bounded_rest(self) -> None:
        assert self.circuit.again_at_s(self.now_s) <= max(self.now_s, self.last_failure_s + TERMS.open_s_max)

    def teardown(self) -> None:
        """Whatever happened, good answers close it."""
        for probe in self.calls:
            self.circuit.undecided(probe=probe)
        self.now_s += TERMS.open_s_max
        for _ in range(TERMS.probes_good):
            assert self.circuit.lets_through(self.now_s)
            self.circuit.succeeded(self.now_s, probe=self.circuit.begin(self.now_s))
        assert self.circuit.state(self.now_s) is CircuitState.CLOSED


TestCircuits = CircuitMachine.TestCase
TestCircuits.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)


def opened(circuit: Circuit, now_s: float) -> float:
    """Lets it fail until it opens; how long it stays open."""
    while circuit.lets_through(now_s):
        circuit.failed(now_s, probe=circuit.begin(now_s), reason="no")
    return circuit.again_at_s(now_s) - now_s


def test_each_time_it_opens_anew_it_rests_twice_as_long_up_to_a_bound() -> None:
    circuit, now_s, rests = Circuit(), 0.0, []
    for _ in range(10):
        rests.append(opened(circuit, now_s))
        now_s += rests[-1]
    assert rests == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0, 60.0, 60.0]


def test_a_rolling_share_of_failures_opens_it_only_where_enough_was_asked() -> None:
    circuit = Circuit()
    for number in range(18):
        circuit.succeeded(1.0, probe=False) if number % 2 else circuit.failed(1.0, probe=False, reason="no")
    assert circuit.lets_through(1.0)
    circuit.failed(1.0, probe=False, reason="no")
    circuit.succeeded(1.0, probe=False)
    circuit.failed(1.0, probe=False, reason="no")
    assert not circuit.lets_through(1.0)


def test_failures_of_long_ago_are_forgotten() -> None:
    circuit = Circuit()
    for _ in range(12):
        circuit.failed(0.0, probe=False, reason="no")
        circuit.succeeded(0.0, probe=False)
        if not circuit.lets_through(0.0):
            break
    else:
        raise AssertionError
    fresh = Circuit()
    for number in range(100):
        now_s = number * 4.0
        fresh.failed(now_s, probe=False, reason="no")
        fresh.succeeded(now_s, probe=False)
    assert fresh.lets_through(400.0)
