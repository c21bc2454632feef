"""The admin's name, colours and sidebar, as django-unfold takes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest
from django.templatetags.static import static
from django.urls import reverse_lazy

# A calm sea green on slate. 600 bears white text and 500 is read on 900, both with a contrast of 4.5 and more.
PRIMARY = {
    "50": "oklch(98% .014 195)",
    "100": "oklch(95% .03 195)",
    "200": "oklch(90% .055 195)",
    "300": "oklch(84% .085 195)",
    "400": "oklch(77% .1 195)",
    "500": "oklch(70% .105 195)",
    "600": "oklch(50% .085 200)",
    "700": "oklch(44% .075 202)",
    "800": "oklch(38% .062 205)",
    "900": "oklch(33% .05 208)",
    "950": "oklch(25% .04 212)",
}
BASE = {
    "50": "oklch(98.4% .003 230)",
    "100": "oklch(96.6% .006 230)",
    "200": "oklch(92.6% .009 230)",
    "300": "oklch(87% .014 230)",
    "400": "oklch(73% .025 230)",
    "500": "oklch(51% .03 232)",
    "600": "oklch(43% .03 233)",
    "700": "oklch(36% .03 234)",
    "800": "oklch(27% .028 235)",
    "900": "oklch(20.5% .025 236)",
    "950": "oklch(14% .02 238)",
}


def _file(name: str) -> Callable[[HttpRequest], str]:
    """The address of one of our static files, which is known only once settings are."""
    return lambda request: static(f"changesource/{name}")


def _list_of(title: str, icon: str, model: str, app: str = "changesource") -> dict[str, Any]:
    """The sidebar's way to a model's list, for whoever may see it; ``icon`` is one of Material Symbols."""
    return {
        "title": title,
        "icon": icon,
        "link": reverse_lazy(f"admin:{app}_{model}_changelist"),
        "permission": lambda request: request.user.has_perm(f"{app}.view_{model}"),
    }


NAVIGATION: list[dict[str, Any]] = [
    {"items": [{"title": "Overview", "icon": "monitoring", "link": reverse_lazy("admin:index")}]},
    {
        "title": "Mappings",
        "items": [
            _list_of("Tables", "table_chart", "tablemapping"),
            _list_of("Publications", "inventory_2", "publication"),
            _list_of("Revisions", "history", "mappingrevision"),
            _list_of("Managed contents", "cloud_download", "managedcontent"),
        ],
    },
    {
        "title": "Flow",
        "items": [
            {
                "title": "Live changes",
                "icon": "stream",
                "link": reverse_lazy("live"),
                "permission": "changesource.admin.live.may_see",
            },
            _list_of("Replicas", "sync_alt", "watermark"),
            _list_of("Row errors", "report", "rowerror"),
            _list_of("Leases", "workspace_premium", "lease"),
        ],
    },
    {
        "title": "Access",
        "items": [
            _list_of("API keys", "key", "apikey"),
            _list_of("Users", "person", "user", "auth"),
            _list_of("Groups", "group", "group", "auth"),
        ],
    },
]

UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "zerosource",
    "SITE_HEADER": "zerosource",
    "SITE_SUBHEADER": "MongoDB for Zero",
    "SITE_URL": None,  # there is no other site to view
    "SITE_ICON": {"light": _file("logo.svg"), "dark": _file("logo-dark.svg")},
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": _file("logo.svg")}],
    "SHOW_VIEW_ON_SITE": False,
    "DASHBOARD_CALLBACK": "changesource.admin.overview.start_page",
    "STYLES": [_file("admin.css")],
    "SCRIPTS": [_file("keyboard.js")],
    "COLORS": {"base": BASE, "primary": PRIMARY},
    "BORDER_RADIUS": "6px",
    "SIDEBAR": {"navigation": NAVIGATION},
}
