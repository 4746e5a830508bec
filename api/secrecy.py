"""Hides what must not be seen on a screen, in a log or in an error: the one place that decides what looks secret."""

import re

MASKED = "********"

_SECRET_NAME = re.compile(
    r"(?:PASSWORD|PASSWD|PASSPHRASE|TOKEN|SECRET|CREDENTIAL|KEY|(?:^|_)(?:PASS|PWD|AUTH|PIN|SALT))S?(?:_|$)",
    re.IGNORECASE,
)
_ENTRY = re.compile(r"(-{0,2}([A-Za-z0-9_.-]+)=)(.+)", re.DOTALL)
_URL_PASSWORD = re.compile(r"(://[^/@:\s]*:)[^/@\s]+(@)")


def looks_secret(name: str) -> bool:
    """Whether what goes by that name is likely a secret: `DB_PASSWORD`, `api-key`."""
    return _SECRET_NAME.search(name.replace("-", "_").replace(".", "_")) is not None


def mask(text: str) -> str:
    """An entry such as `KEY=value`, `--key=value` or a URL, with the secret part hidden."""
    entry = _ENTRY.fullmatch(text)
    if entry and looks_secret(entry[2]):
        return f"{entry[1]}{MASKED}"
    return _URL_PASSWORD.sub(rf"\1{MASKED}\2", text)
