"""Django's settings, made from ``changesource.conf``: the environment is read there alone."""

from __future__ import annotations

from typing import Any

import environ

from changesource import conf
from zerosource_project import theme

settings = conf.settings()

BASE_DIR = conf.ROOT
# Never, whatever our own DEBUG says: Django's pages for errors show settings, local variables and requests, and these
# hold passwords. The log has each traceback.
DEBUG = False
SECRET_KEY = settings.secret_key
SECRET_KEY_FALLBACKS = list(settings.secret_key_fallbacks)
ALLOWED_HOSTS = list(settings.allowed_hosts)
CSRF_TRUSTED_ORIGINS = list(settings.csrf_trusted_origins)
CSRF_FAILURE_VIEW = "changesource.views.csrf_failure"

INSTALLED_APPS = [
    "unfold",  # before the admin, whose templates it overrides
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "changesource",
]

MIDDLEWARE = [
    "changesource.page_traces.PageTraces",  # first, so that it sees all
    "changesource.proxies.TrustedProxies",
    "changesource.headers.ContentSecurityPolicy",
    "django.middleware.security.SecurityMiddleware",
    "changesource.static_files.StaticFilesMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "changesource.sessions.SessionLimits",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "changesource.refusals.RefusalMiddleware",  # last, so that it is the first to hear of a view's error
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

ROOT_URLCONF = "zerosource_project.urls"
ASGI_APPLICATION = "zerosource_project.asgi.application"

# Taken away from whoever is no trusted proxy, so it may be read.
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = settings.secure_cookies
SESSION_COOKIE_AGE = min(settings.session_idle_seconds, settings.session_seconds)
CSRF_COOKIE_HTTPONLY = True  # forms carry the token
SECURE_HSTS_SECONDS = settings.hsts_seconds
SILENCED_SYSTEM_CHECKS = [
    "security.W005",  # HSTS for this host alone: other hosts under its name are not ours to decide on
    "security.W008",  # who ends TLS leads from http to https; replicas and probes come by plain http from inside
    "security.W021",  # as W005
]

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]


def _database(url: str) -> dict[str, Any]:
    """Django's entry for DATABASE_URL; a relative SQLite path starts at the project."""
    entry: dict[str, Any] = environ.Env.db_url_config(url)
    if entry["ENGINE"] == "django.db.backends.sqlite3":
        if entry["NAME"] != ":memory:":
            entry["NAME"] = str(BASE_DIR / entry["NAME"])
        # WAL lets the admin read while the watcher writes. A transaction that began as a reader cannot wait for the
        # write lock, it fails at once; so each asks for the lock at its beginning, and waits for at most `timeout`.
        entry["OPTIONS"] = {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        }
    else:
        entry["CONN_HEALTH_CHECKS"] = True
        # A server that swallows what it is sent must not hold up a thread for good; what the URL says comes first.
        options = entry.setdefault("OPTIONS", {})
        for name, value in {"connect_timeout": 10, "tcp_user_timeout": 10_000}.items():
            options.setdefault(name, value)
    return entry


DATABASES = {"default": _database(settings.database_url)}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

CHANNEL_LAYERS: dict[str, dict[str, Any]] = {
    "default": {
        "BACKEND": "changesource.redis_layer.QuietRedisLayer",
        # The layer waits for messages 5 s at a time, which is redis-py's timeout too: an idle layer would seem lost.
        "CONFIG": {
            "hosts": [{"address": settings.redis_url, "socket_timeout": 15}],
            "capacity": settings.layer_capacity,
        },
    }
    if settings.redis_url
    else {
        "BACKEND": "channels.layers.InMemoryChannelLayer",
        "CONFIG": {"capacity": settings.layer_capacity},
    }
}

LANGUAGE_CODE = "en-us"
USE_I18N = False
USE_TZ = True
TIME_ZONE = "UTC"

STATIC_URL = "static/"
WHITENOISE_USE_FINDERS = True  # the admin's files are served from where they are installed; no collectstatic
WHITENOISE_AUTOREFRESH = settings.debug

UNFOLD = theme.UNFOLD
SESSION_ENGINE = "changesource.sessions"
LOGIN_REDIRECT_URL = "admin:index"  # there is no other place
DATA_UPLOAD_MAX_MEMORY_SIZE = settings.max_request_bytes
DATA_UPLOAD_MAX_NUMBER_FIELDS = 10_000  # each column of a table takes eight

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "text": {"()": "changesource.logs.TextFormatter"},
        "json": {"()": "changesource.logs.JsonFormatter"},
    },
    "filters": {"strangers": {"()": "changesource.refusals.StrangersRecords"}},
    "handlers": {
        "stderr": {"class": "logging.StreamHandler", "formatter": settings.log_format, "filters": ["strangers"]}
    },
    "root": {"handlers": ["stderr"], "level": "WARNING"},
    "loggers": {
        "changesource": {"level": settings.log_level},
        # Django's own handlers would print each line a second time, in another form.
        "django": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
        "django.server": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
    },
}
