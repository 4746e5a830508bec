"""The token that `mcp` shows: where it is kept, for its owner's eyes alone."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from api.errors import Refused
from cli.config import Node, home


def token_path(node: Node) -> Path:
    """Where the token for that node is kept: MCP_TOKEN_FILE, the settings' token_file, or ~/.config/mcp/token."""
    named = os.environ.get("MCP_TOKEN_FILE") or node.token_file
    return Path(named) if named else home() / "token"


def read_token(path: Path) -> str | None:
    """The token in that file, without the white space around it; None where there is none. Raises Refused."""
    try:
        token = path.read_text().strip() or None
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"the token in {path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if token is not None and (not token.isascii() or not token.isprintable() or " " in token):
        raise Refused(f"what is in {path} is no token: log in again with mcp login")
    return token


def keep_token(path: Path, token: str) -> None:
    """Puts the token there, whole or not at all, for nobody else to read. Raises Refused."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Made 0600 from its first moment on.
        descriptor, name = tempfile.mkstemp(prefix=".token-", dir=path.parent)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(f"{token}\n")
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            with suppress(OSError):
                Path(name).unlink()
            raise
    except OSError as error:
        raise Refused(f"the token cannot be kept in {path}: {error.strerror}") from error


def drop_token(path: Path) -> bool:
    """Removes the token; whether there was one. Raises Refused."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise Refused(f"{path} cannot be removed: {error.strerror}") from error
    return True
