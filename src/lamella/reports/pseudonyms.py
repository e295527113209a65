"""Pseudonyms: patients and slides as salted hashes, for what leaves the building.

A keyed hash (HMAC-SHA256) is the same for the same salt and identifier, so files written on different days still
match, and cannot be turned back, or guessed from a list of identifiers, by anyone without the salt. Keep the salt
with the slides and pass it to nobody.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field

from lamella.errors import SettingsError

_HEX_DIGITS = 12  # 48 bits: two of 100,000 slides share a pseudonym with a chance of 1 in 56,000
_LEAST_SALT = 8


@dataclass(frozen=True, slots=True)
class Pseudonyms:
    """Slides and patients as salted hashes.

    A slide and a patient of the same identifier get different pseudonyms.

    Attributes:
        salt: At least 8 characters that only the holder of the slides knows; not shown in a repr.

    Raises:
        SettingsError: If the salt is shorter.

    Example:
        >>> names = Pseudonyms("kept with the slides")
        >>> names.slide("S-0412")
        'slide-b352cb6e6a9c'
        >>> names.patient("S-0412") == names.patient("S-0413")
        False
    """

    salt: str = field(repr=False)

    def __post_init__(self) -> None:
        """Refuse a salt that can be guessed at once."""
        if len(self.salt) < _LEAST_SALT:
            raise SettingsError(
                f"the salt of the pseudonyms has {len(self.salt)} characters and must have at least {_LEAST_SALT}. "
                f"Pass a longer one, such as {make_salt()}, and keep it with the slides."
            )

    def slide(self, slide_id: str) -> str:
        """Return the pseudonym of a slide."""
        return f"slide-{self._hash('slide', slide_id)}"

    def patient(self, patient_id: str) -> str:
        """Return the pseudonym of a patient."""
        return f"patient-{self._hash('patient', patient_id)}"

    def _hash(self, kind: str, identifier: str) -> str:
        """Return the first 48 bits of the keyed hash, as hex digits."""
        message = f"{kind}\0{identifier}".encode()
        return hmac.new(self.salt.encode(), message, hashlib.sha256).hexdigest()[:_HEX_DIGITS]


def make_salt() -> str:
    """Return a fresh random salt of 32 hex digits."""
    return secrets.token_hex(16)
