"""MCIAS is asked over real HTTPS; what it said holds for a while, and without it nobody gets in."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from api.access import How, Identity, Role
from api.errors import Forbidden, Unauthenticated, Unreachable
from api.https import NoAnswer, Server
from controller.auth.authenticator import Credentials
from controller.auth.mcias import MciasTokens
from controller.auth.settings import MciasSettings
from controller.registry import utc_now
from stack import https
from stack.mcias import Account, Mcias


@pytest.fixture
def mcias(tmp_path: Path) -> Iterator[Mcias]:
    accounts = {"ann": Account("x", ("user", "admin")), "bob": Account("x"), "eve": Account("x", ("guest",))}
    with Mcias(tmp_path / "mcias", accounts | {"ci": Account("x", ())}).serving() as running:
        yield running


def asking(mcias: Mcias, **settings: object) -> MciasTokens:
    return MciasTokens(MciasSettings(url=mcias.url, ca_file=str(mcias.ca_file), **settings), utc_now)  # type: ignore[arg-type]


async def test_roles_stand_for_what_the_settings_say(mcias: Mcias) -> None:
    tokens = asking(mcias)
    token = mcias.issue("ann")
    ann = Identity(name="ann", role=Role.ADMIN, how=How.MCIAS, expires_at=mcias.tokens[token][1])
    assert await tokens.identify(Credentials(token)) == ann
    bob = await tokens.identify(Credentials(mcias.issue("bob")))
    assert bob is not None
    assert bob.role is Role.OPERATOR
    viewer = await asking(mcias, roles=("user:viewer",)).identify(Credentials(mcias.issue("ann")))
    assert viewer is not None
    assert viewer.role is Role.VIEWER


@pytest.mark.parametrize("name", ["eve", "ci"])
async def test_guests_and_accounts_without_roles_are_refused(mcias: Mcias, name: str) -> None:
    with pytest.raises(Forbidden, match=f"{name} has no role here"):
        await asking(mcias).identify(Credentials(mcias.issue(name)))


async def test_it_is_asked_once_for_as_long_as_an_answer_holds(mcias: Mcias) -> None:
    tokens, token = asking(mcias, cache_seconds=0.3), mcias.issue("ann")
    known = await asyncio.gather(*(tokens.identify(Credentials(token)) for _ in range(20)))
    assert len(set(known)) == 1
    assert len(mcias.asked) == 1
    del mcias.tokens[token]
    assert await tokens.identify(Credentials(token)) == known[0]
    await asyncio.sleep(0.35)
    assert await tokens.identify(Credentials(token)) is None
    assert await tokens.identify(Credentials(token)) is None
    assert len(mcias.asked) == 2


async def test_a_token_that_expires_holds_no_longer_than_it_says_whatever_is_remembered(mcias: Mcias) -> None:
    tokens, token = asking(mcias), mcias.issue("ann", timedelta(seconds=0.5))
    assert await tokens.identify(Credentials(token)) is not None
    await asyncio.sleep(0.6)
    with pytest.raises(Unauthenticated, match="expired"):
        await tokens.identify(Credentials(token))


async def test_without_an_answer_nobody_is_let_in(mcias: Mcias, tmp_path: Path) -> None:
    tokens, known, new = asking(mcias, cache_seconds=0.3), mcias.issue("ann"), mcias.issue("ann")
    assert await tokens.identify(Credentials(known)) is not None
    mcias.broken = True
    with pytest.raises(Unreachable, match="answered 500"):
        await tokens.identify(Credentials(new))
    assert await tokens.identify(Credentials(known)) is not None
    await asyncio.sleep(0.35)
    with pytest.raises(Unreachable):
        await tokens.identify(Credentials(known))
    mcias.broken = False
    assert await tokens.identify(Credentials(known)) is not None


async def test_a_server_that_is_not_the_one_is_told_nothing(mcias: Mcias, tmp_path: Path) -> None:
    asked: list[str] = []
    with https.serving(
        tmp_path / "other", lambda path, token, body: asked.append(token) or (200, {"valid": True})
    ) as url:
        impostor = MciasTokens(MciasSettings(url=url, ca_file=str(mcias.ca_file)), utc_now)
        with pytest.raises(Unreachable, match="CERTIFICATE_VERIFY_FAILED"):
            await impostor.identify(Credentials("secret"))
    assert asked == []


@pytest.mark.parametrize("body", [{}, {"valid": "yes"}, {"valid": True}, {"valid": True, "sub": "x", "roles": "admin"}])
async def test_an_answer_that_is_not_as_agreed_lets_nobody_in(tmp_path: Path, body: dict[str, object]) -> None:
    with https.serving(tmp_path / "odd", lambda *_: (200, body)) as url:
        odd = MciasTokens(MciasSettings(url=url, ca_file=str(tmp_path / "odd" / "ca.pem")), utc_now)
        with pytest.raises(Unreachable, match="means nothing to us"):
            await odd.identify(Credentials("x"))


async def test_a_redirect_is_not_followed(tmp_path: Path, mcias: Mcias) -> None:
    with https.serving(tmp_path / "moved", lambda *_: (307, {})) as url:
        answer = await asyncio.to_thread(Server(url, str(tmp_path / "moved" / "ca.pem")).ask, "/x", token="t")
        assert answer.status == 307
        with pytest.raises(NoAnswer, match="is not an https"):
            Server("file:///etc/passwd").ask()


async def test_nobody_is_asked_for_those_who_failed_too_often_or_for_tokens_of_our_own(mcias: Mcias) -> None:
    tokens, token = asking(mcias), mcias.issue("ann")
    assert await tokens.identify(Credentials(token, known_only=True)) is None
    assert await tokens.identify(Credentials("mcp_x")) is None
    assert await tokens.identify(Credentials("")) is None
    assert mcias.asked == []
    await tokens.identify(Credentials(token))
    assert await tokens.identify(Credentials(token, known_only=True)) is not None


async def test_what_is_remembered_is_bounded(mcias: Mcias, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controller.auth.mcias._REMEMBERED", 3)
    tokens = asking(mcias)
    for number in range(5):
        await tokens.identify(Credentials(f"wrong-{number}"))
    assert len(tokens._known) == 3
    assert "wrong-4" not in str(tokens._known)


async def test_who_gives_up_waiting_does_not_spoil_it_for_the_others(mcias: Mcias) -> None:
    tokens, token = asking(mcias), mcias.issue("ann")
    first, second = (asyncio.ensure_future(tokens.identify(Credentials(token))) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second is not None
