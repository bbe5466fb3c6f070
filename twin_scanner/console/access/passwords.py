"""Passwords of local users: Argon2id hashes, checked in the same time whether there is such a user or not."""

import secrets
import threading
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from twin_scanner.errors import Rejected

SHORTEST: Final = 12
"""Characters of a password (NIST SP 800-63B asks for at least 8, OWASP ASVS 2.1.1 for 12)."""
LONGEST: Final = 1024
"""A longer text is no password but work for the hash."""
AT_ONCE: Final = 2
"""So many hashes are computed at a time: each takes 64 MiB of memory (RFC 9106, second recommended option)."""


class Passwords:
    """Hashes and checks passwords; ``hasher`` has the parameters."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        self._nobodys = self._hasher.hash(secrets.token_urlsafe(32))
        self._places = threading.BoundedSemaphore(AT_ONCE)

    def hash(self, password: str, user_name: str) -> str:
        """What is kept of a password; raises Rejected where it is too short, too long or the user's name."""
        if not SHORTEST <= len(password) <= LONGEST:
            raise Rejected(f"A password has {SHORTEST} to {LONGEST} characters: choose another one.")
        if password.casefold() == user_name.casefold():
            raise Rejected("The password is the user's name: choose another one.")
        with self._places:
            return self._hasher.hash(password)

    def fits(self, password: str, kept: str | None) -> bool:
        """Whether the password is the one that was hashed; without a hash the same work is done, for nothing."""
        if len(password) > LONGEST:
            return False
        with self._places:
            try:
                found = self._hasher.verify(kept or self._nobodys, password)
            except (VerificationError, InvalidHashError):
                return False
        return found and kept is not None

    def is_outdated(self, kept: str) -> bool:
        """Whether a hash was made by weaker parameters than those of today."""
        return self._hasher.check_needs_rehash(kept)
