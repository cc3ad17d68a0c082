"""Personal data by its form: what has a check digit, a valid range or a plan of numbers is checked, and little is found in vain.

Phone numbers are found by phonenumbers (Google's libphonenumber), card numbers, IBANs and US social security numbers checked by
python-stdnum. Names, addresses and dates of birth have no form: nothing here finds them.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

from adapterkit.credentials import Match, apart

from .needs import need

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["GRAVE", "PersonalData"]

GRAVE = {"card number", "IBAN", "US social security number"}
"""What harms at once when it leaks."""
_EMAIL = re.compile(r"(?<![\w.+-])[\w.%+-]{1,64}@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+[^\W\d_]{2,24}(?![\w@-])")
_CARD = re.compile(r"(?<![\d.,-])\d(?:[ -]?\d){12,18}(?![\d-])")
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}(?![A-Za-z0-9])")
_SSN = re.compile(r"(?<![\d-])\d{3}-\d{2}-\d{4}(?![\d-])")
_IP = re.compile(r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4})(?![\w:]|\.\d)")
_SEVEN_DIGITS = re.compile(r"(?:\d[\s().+/-]{0,3}){7}")
_IBAN_LENGTHS = range(34, 14, -1)


class PersonalData:
    """Finds e-mail addresses, phone, card and US social security numbers, IBANs and public IP addresses.

    Args:
        phone_regions: Countries whose numbers are found without a country code.

    Raises:
        MissingLibraryError: phonenumbers or python-stdnum is not installed.
    """

    def __init__(self, phone_regions: Sequence[str]) -> None:
        self._phones = need("phonenumbers")
        self._luhn, self._iban, self._ssn = need("stdnum.luhn"), need("stdnum.iban"), need("stdnum.us.ssn")
        self._regions = phone_regions

    def find(self, text: str) -> Iterator[Match]:
        """What is in ``text``; where two kinds fit the same characters, the first of the list above."""
        return apart(self._all(text))

    def _all(self, text: str) -> Iterator[Match]:
        if "@" in text:
            yield from _matches("e-mail address", _EMAIL, text)
        if ":" in text or "." in text:
            yield from _matches("IP address", _IP, text, _is_public)
        if not _SEVEN_DIGITS.search(text) and not _IBAN.search(text):
            return
        yield from self._ibans(text)
        yield from _matches("card number", _CARD, text, self._is_card)
        yield from _matches("US social security number", _SSN, text, self._ssn.is_valid)
        yield from self._phone_numbers(text)

    def _ibans(self, text: str) -> Iterator[Match]:
        # a word in capitals may follow it, so that the longest that is valid counts
        for found in _IBAN.finditer(text):
            ends = [end for end in range(found.end(), found.start() + min(_IBAN_LENGTHS), -1) if text[end - 1] != " "]
            end = next((end for end in ends if self._iban.is_valid(text[found.start() : end])), None)
            if end is not None:
                yield Match("IBAN", found.start(), end)

    def _is_card(self, text: str) -> bool:
        digits = "".join(filter(str.isdigit, text))
        # the first digits of the networks that issue cards (ISO/IEC 7812): 3 to 6, and 2 for Mastercard's and Mir's
        return digits[0] in "23456" and len(set(digits)) > 1 and self._luhn.is_valid(digits)

    def _phone_numbers(self, text: str) -> Iterator[Match]:
        for region in self._regions or (None,):
            for found in self._phones.PhoneNumberMatcher(text, region):
                yield Match("phone number", found.start, found.end)


def _matches(
    kind: str, pattern: re.Pattern[str], text: str, holds: Callable[[str], bool] = lambda _: True
) -> Iterator[Match]:
    for found in pattern.finditer(text):
        if holds(found.group()):
            yield Match(kind, found.start(), found.end())


def _is_public(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).is_global
    except ValueError:
        return False
