"""The ASGI application: HTTP by Django, the change stream by Channels."""

from __future__ import annotations

import os

from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "zerosource_project.settings")
http = get_asgi_application()

from changesource import access_log  # noqa: E402 - as the next one
from changesource.health import HealthPages  # noqa: E402
from changesource.routing import websocket_urlpatterns  # noqa: E402 - models can be imported only now

access_log.leave_out_queries()
application = ProtocolTypeRouter({"http": HealthPages(http), "websocket": URLRouter(websocket_urlpatterns)})
