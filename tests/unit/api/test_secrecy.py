"""What a definition marks as secret is shown to nobody, and its mask stands for what is stored."""

import pytest

from api.diff import diff
from api.errors import InvalidSpec
from api.manifest import InvalidManifest, dump, load
from api.secrecy import MASKED, hidden, secret_values, with_stored_secrets, without_secrets
from api.spec import ComponentSpec, ServiceSpec


def shop(*env: str, secret: tuple[str, ...] = ("DSN",), name: str = "web") -> ServiceSpec:
    return ServiceSpec(name="shop", components=(ComponentSpec(name=name, image="x:1", env=env, secret_env=secret),))


STORED = shop("DSN=correct horse", "LEVEL=info")
SHOWN = shop(f"DSN={MASKED}", "LEVEL=info")


def test_what_is_shown_applies_as_what_is_stored() -> None:
    assert hidden(STORED.components[0]) == SHOWN.components[0]
    assert load(dump(SHOWN), "f").spec == SHOWN
    assert with_stored_secrets(SHOWN, STORED) == STORED
    assert with_stored_secrets(shop("DSN=other"), STORED) == shop("DSN=other")
    assert with_stored_secrets(STORED, None) == STORED


def test_what_was_shown_before_can_be_marked_without_writing_it_again() -> None:
    assert with_stored_secrets(SHOWN, shop("DSN=correct horse", secret=())).components[0].env[0] == "DSN=correct horse"


@pytest.mark.parametrize(
    ("spec", "stored", "problem"),
    [
        (SHOWN, None, 'DSN is masked, and no value of it is stored for component "web": write its value'),
        (shop("A=1", f"X={MASKED}", secret=("X",)), STORED, "X is masked, and no value of it is stored"),
        (shop(f"DSN={MASKED}", name="api"), STORED, "DSN is masked, and no value of it is stored"),
        (shop(f"DSN={MASKED}", secret=()), STORED, "DSN is masked without being marked: name it in secret_env"),
    ],
    ids=["no service", "no such variable", "a renamed component", "the mark is gone"],
)
def test_a_mask_that_stands_for_nothing_is_refused(spec: ServiceSpec, stored: ServiceSpec | None, problem: str) -> None:
    with pytest.raises(InvalidSpec, match=problem) as refused:
        with_stored_secrets(spec, stored)
    assert refused.value.field.startswith("components[0].env[")


@pytest.mark.parametrize(
    "new",
    [
        shop("DSN=battery staple"),
        shop("DSN=battery staple", secret=()),
        shop("A=1", secret=()),
        shop("DSN=x", "DSN=y", secret=()),
    ],
    ids=["another value", "no mark", "gone", "twice"],
)
def test_a_difference_says_that_it_changed_and_not_from_what_to_what(new: ServiceSpec) -> None:
    for one, other in ((STORED, new), (new, STORED)):
        told = "".join(change.model_dump_json() for change in diff(one, other))
        assert "components[web].env" in told
        assert "horse" not in told
        assert "battery" not in told
    removed = diff(STORED, ServiceSpec(name="shop", components=(ComponentSpec(name="api", image="x:1"),)))
    assert "horse" not in str(removed)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ('secret_env = ["DSN"]', 'components[0].secret_env: names "DSN", which env sets nowhere'),
        ('env = ["DSN=horse", "DSN=horse"]\nsecret_env = ["DSN"]', "which env sets several times"),
        ('env = ["DSN=horse"]\nsecrets = ["dsn:env:DSN"]', 'components[0].secrets: sets the variable "DSN"'),
        ('secrets = ["dsn:env:A-B"]', 'is not the name of a variable such as "DB_PASSWORD"'),
        ('env = ["1DSN=horse"]', 'the entry is not of the form "KEY=value"'),
        ('env = "DSN=horse"', "must be a list in [ ], not the entry"),
        ('env = ["DSN=horse\\u0000"]', "the entry must not contain a NUL character"),
    ],
)
def test_what_is_wrong_is_said_without_the_value(fields: str, problem: str) -> None:
    with pytest.raises(InvalidManifest) as refused:
        load(f'name = "shop"\n[[components]]\nname = "web"\n{fields}\n', "f")
    assert problem in str(refused.value)
    assert "horse" not in f"{refused.value!s} {refused.value.__cause__!s}"


def test_what_a_container_writes_of_it_is_masked() -> None:
    spec = shop("DSN=horse-and-cart", "KEY=horse-", "PIN=1", secret=("DSN", "KEY", "PIN"))
    assert without_secrets("1 horse-and-cart, horse-", secret_values(spec)) == f"1 {MASKED}, {MASKED}"
