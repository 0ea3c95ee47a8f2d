"""RE2 expressions. What is true here was asked of Go's regexp; so were 200,000 random ones while this was written."""

import re
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pynsqd.wire.patterns import MAX_SIZE, Effort, Pattern, PatternError, compiled

NAMES = ["", "a", "b", "A", "k", "s", "_", "-", "ab", "a.b", "aaaa", "orders", "Orders.eu-1#ephemeral", "a" * 64]

NONE = r"""
( ) a) [ [a [] * a** a*?+ a{2}{3} (*) a|* ^(+) {2} a{1001} a{3,2} (a{100}){11} ((a{2}){100}){6}
(?=a) (?!a) (?<=a) (?#a) (?P=n) (?P>n) (?P<n>a)(?P<n>b) (?<>a) (?<é>a) (? (?i (?-) (?i-:a) (?x) (?--i)
\ \1 (a)\1 \8 \Z \C \E \é \y \x \x4 \x{} \x{110000} \x{6 \pX \p{Foo} \p{} \p \p{L
[b-a] [a-\d] [\b] [[:foo:]] [[:alpha:]
"""


def matching(expression: str, names: list[str] = NAMES) -> list[str]:
    return [name for name in names if Pattern(expression).matches(name, Effort(10**6))]


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("", NAMES),
        (".*", NAMES),
        ("^$", [""]),
        ("order", ["orders"]),
        ("(?i)order", ["orders", "Orders.eu-1#ephemeral"]),
        ("(?i:O)rders$", ["orders"]),
        ("a(?i)B", ["ab"]),
        ("((?i)A)b", ["ab"]),
        ("(?i)(?-i:A)", ["A"]),
        ("(?i)\u212a|\u017f$", ["k", "s", "orders"]),
        ("\u212a|\u017f|é", []),
        ("^a|b$", ["a", "b", "ab", "a.b", "aaaa", "a" * 64]),
        ("^a{4}$", ["aaaa"]),
        ("^a{2,}$", ["aaaa", "a" * 64]),
        ("^(?:a{2}){1,3}$", ["aaaa"]),
        ("^a{,2}$", []),
        ("^a+?$", ["a", "aaaa", "a" * 64]),
        ("^a{0}$", [""]),
        (r"^\w\W\w$", ["a.b"]),
        (r"\b-\B|\B\.", []),
        (r"a\b\.", ["a.b"]),
        (r"\Bb", ["ab"]),
        (r"\Aab\z", ["ab"]),
        (r"^\Qa.b\E$", ["a.b"]),
        (r"^\Qa.", ["a.b"]),
        (r"^[[:alpha:]]$", ["a", "b", "A", "k", "s"]),
        (r"^[[:^alpha:]]$", ["_", "-"]),
        (r"(?i)^[[:upper:]]$", ["a", "b", "A", "k", "s"]),
        (r"(?i)^[^[:upper:]]$", ["_", "-"]),
        (r"^[\pL]$", ["a", "b", "A", "k", "s"]),
        (r"^\P{Lu}$", ["a", "b", "k", "s", "_", "-"]),
        (r"^\p{^Latin}$", ["_", "-"]),
        (r"^\p{P}$", ["_", "-"]),
        (r"^[]a]$", ["a"]),
        (r"^[a-]$", ["a", "-"]),
        (r"^[^a-zA]$", ["_", "-"]),
        (r"^[\x61\101\x{62}]$", ["a", "b", "A"]),
        (r"^\x61\.\142$", ["a.b"]),
        ("(?P<n>a)(?<m>b)", ["ab"]),
        ("a{", []),
        ("^(|a)(|b)$", ["", "a", "b", "ab"]),
        ("(?s).(?m)^", []),
        ("^*a(?U)+$", ["a", "aaaa", "a" * 64]),
    ],
)
def test_what_it_matches(expression: str, names: list[str]) -> None:
    assert matching(expression) == names


@pytest.mark.parametrize("expression", NONE.split())
def test_what_is_no_expression(expression: str) -> None:
    with pytest.raises(PatternError):
        Pattern(expression)


SIMPLE = st.recursive(
    st.sampled_from(["a", "b", ".", "[ab]", "[^a]", r"\.", "^", "$", r"\w", r"\b", "-", ""]),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map("|".join),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,3}", "{2,}"])).map(
            lambda both: f"(?:{both[0]}){both[1]}"
        ),
    ),
    max_leaves=8,
)


@settings(max_examples=300)
@given(SIMPLE, st.text("ab.-", max_size=6))
def test_agrees_with_re_where_that_speaks_the_same_language(expression: str, name: str) -> None:
    assert Pattern(expression).matches(name, Effort(10**6)) == bool(re.search(expression.replace("$", r"\Z"), name))


@given(st.text(max_size=20))
def test_noise_is_a_pattern_or_an_error(expression: str) -> None:
    with suppress(PatternError):
        Pattern(expression).matches("a", Effort(10**6))


@pytest.mark.parametrize("expression", ["(a+)+$", "(a|a)*$", "(a*)*b", "(a?){60}a{60}", "(.*){900}b", "(?:a?){900}b"])
def test_costs_no_more_than_linear_time(expression: str) -> None:
    """Some of these would keep ``re`` busy for years."""
    pattern = Pattern(expression)
    name = "a" * 63 + "-"
    steps_per_character = 2 * pattern.size + 2  # an optional part is a step of its own
    pattern.matches(name, Effort(steps_per_character * (len(name) + 1)))


@pytest.mark.parametrize("expression", ["(|a){1000}" * 9, "(){1000}" * 90, "a{900}" * 90, "(" * 200 + ")" * 200])
def test_what_is_too_large_is_refused_at_once(expression: str) -> None:
    pattern = Pattern.__new__(Pattern)
    with pytest.raises(PatternError):
        pattern.__init__(expression)  # type: ignore[misc]
    assert pattern.size <= MAX_SIZE + 1  # no more was built


def test_effort_is_spent() -> None:
    pattern = Pattern("^orders$")
    with pytest.raises(PatternError):
        pattern.matches("orders", Effort(5))
    assert pattern.matches("orders", Effort(50))


def test_clients_share_what_is_compiled() -> None:
    assert compiled("^shared$") is compiled("^shared$")
