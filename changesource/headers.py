"""What pages tell browsers beside what Django's own middleware does."""

from __future__ import annotations

from typing import Final

from django.http import HttpRequest, HttpResponse
from django.utils.deprecation import MiddlewareMixin

# Scripts come from our files alone. The theme's Alpine makes functions of attributes ('unsafe-eval'), and the theme
# has its colours in a style element and widths in attributes ('unsafe-inline', of styles only).
CONTENT_SECURITY_POLICY: Final = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)


class ContentSecurityPolicy(MiddlewareMixin):
    """Sends the policy with every answer; Django has this from 6.0 on, as ``SECURE_CSP``."""

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        """Add the header."""
        response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
        return response
