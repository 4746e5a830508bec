"""Recognises who shows a certificate that TLS has verified (api.listen, auth.client_ca_file)."""

from api.access import How, Identity
from controller.auth.authenticator import Credentials, role_of
from controller.auth.settings import AuthSettings


class Certificates:
    """Knows common names. Implements controller.auth.authenticator.Authenticator."""

    def __init__(self, settings: AuthSettings) -> None:
        self._mapping = settings.certificates

    async def identify(self, credentials: Credentials) -> Identity | None:
        """Whose certificate that is. Who shows a token as well is whom the token says."""
        name = credentials.common_name
        if credentials.token or not name:
            return None
        return Identity(name=name, role=role_of(name, (name,), self._mapping), how=How.CERTIFICATE)
