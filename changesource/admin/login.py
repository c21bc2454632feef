"""The admin's login, which takes only so many tries."""

from __future__ import annotations

import logging
from typing import Any

from django.core.exceptions import ValidationError
from django.utils import timezone
from unfold.forms import AuthenticationForm

from changesource.conf import settings
from changesource.store import logins

logger = logging.getLogger(__name__)


class LoginForm(AuthenticationForm):  # type: ignore[misc]  # the package has no types
    """Name and password. See ``store.logins`` for what is counted."""

    def clean(self) -> dict[str, Any]:
        """Log in. Raises ``ValidationError`` where name and password do not fit, or were tried too often."""
        name, address = self.cleaned_data.get("username"), self.request.META.get("REMOTE_ADDR", "")
        if name is None or not self.cleaned_data.get("password"):
            return {}  # each field says what it lacks
        chosen = settings()
        number = logins.begin(address, name, chosen.login_tries, chosen.login_tries_seconds, timezone.now())
        if number is None:
            # By its status it is rationed as other refusals are: it takes nothing to have many of them.
            logger.warning("login refused", extra={"client": address, "why": "too many tries", "status_code": 429})
            minutes = max(1, round(chosen.login_tries_seconds / 60))
            raise ValidationError(
                f"Too many tries from your address. Wait {minutes} minute{'s' * (minutes > 1)}, then try again.",
                code="throttled",
            )
        try:
            cleaned: dict[str, Any] = super().clean()
        except ValidationError:
            logger.warning("login failed", extra={"client": address})
            raise
        logins.succeeded(number)
        logger.info("login", extra={"user": name, "client": address})
        return cleaned
