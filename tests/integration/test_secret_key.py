"""``SECRET_KEY`` is rotated: sessions of a former key live on while it is a fallback, and end without."""

from __future__ import annotations

import pytest
from django.conf import settings
from django.test import Client, override_settings

from tests.conftest import DeploymentFactory

INDEX = "/admin/"
OLD, NEW = "old-secret-key", "new-secret-key"


def is_logged_in(client: Client) -> bool:
    """Whether the start page is shown, and not the login."""
    return client.get(INDEX).status_code == 200


@pytest.mark.django_db
def test_sessions_live_on_while_their_key_is_a_fallback(django_user_model: type) -> None:
    user = django_user_model.objects.create_superuser("admin", password="for-tests-only")  # type: ignore[attr-defined]
    clients = [Client(), Client(), Client()]
    with override_settings(SECRET_KEY=OLD, SECRET_KEY_FALLBACKS=[]):
        for client in clients:
            client.force_login(user)
            assert is_logged_in(client)
    comes_back, stays_away, is_too_late = clients
    with override_settings(SECRET_KEY=NEW, SECRET_KEY_FALLBACKS=[]):
        assert not is_logged_in(is_too_late)
    with override_settings(SECRET_KEY=NEW, SECRET_KEY_FALLBACKS=[OLD]):
        assert is_logged_in(comes_back)
    # A session that was seen meanwhile is the new key's.
    with override_settings(SECRET_KEY=NEW, SECRET_KEY_FALLBACKS=[]):
        assert is_logged_in(comes_back)
        assert not is_logged_in(stays_away)


def test_the_environment_says_which(deployment: DeploymentFactory) -> None:
    place = deployment(SECRET_KEY=NEW, SECRET_KEY_FALLBACKS=f"{OLD}, older")
    shown = place.manage("shell", "-v0", "-c", "from django.conf import settings as s; print(s.SECRET_KEY_FALLBACKS)")
    assert shown.strip() == str([OLD, "older"])
    assert settings.SECRET_KEY_FALLBACKS == []
