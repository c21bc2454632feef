"""What an operator should know at the start: what stands in for settings that were not given, and what is missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from urllib.parse import unquote, urlsplit

from changesource.conf import Settings
from changesource.nestjs import Translated

WIDTH = 15


def announce(chosen: Settings, given: Mapping[str, str]) -> list[str]:
    """Return a line for each setting that was not given and matters in production; ``given`` is the environment.

    Nothing that is secret is in them.
    """
    return [f"{subject:<{WIDTH}}{text}" for subject, text in _lines(chosen, given)]


def translated(found: Translated) -> list[str]:
    """Return a line for each setting of the NestJS server that has no meaning here, and one for what its file gave."""
    taken = ", ".join(f"{place} as {name}" for name, place in found.origins.items())
    lines = [f"{found.file}: {taken or 'nothing was taken'}"] if found.file else []
    lines += [f"{name} has no meaning here: {why}" for name, why in found.without_meaning]
    return [f"{'Of NestJS':<{WIDTH}}{line}" for line in lines]


def missing_admin() -> str:
    """Return the line for a deployment that nobody can log in to."""
    remedy = "set DJANGO_SUPERUSER_USERNAME and DJANGO_SUPERUSER_PASSWORD and start again, or run createsuperuser"
    return f"{'Admin user':<{WIDTH}}there is none yet: {remedy}"


def _lines(chosen: Settings, given: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    def lacks(*names: str) -> bool:
        return not any(given.get(name, "").strip() for name in names)

    if lacks("MONGODB_DATABASE") and not unquote(urlsplit(chosen.mongodb_uri or "").path.lstrip("/")):
        yield (
            "MongoDB",
            f"the database {chosen.mongodb_database!r} (neither MONGODB_DATABASE nor the URI names one)",
        )
    if lacks("DATABASE_URL"):
        yield "Database", f"SQLite in {chosen.data_dir}, which must be kept (DATABASE_URL is not set)"
    if lacks("SECRET_KEY"):
        yield "Secret key", f"kept in {chosen.data_dir} (SECRET_KEY is not set)"
    if lacks("REDIS_URL"):
        yield "Channel layer", "in memory, for this process alone (REDIS_URL is not set)"
    if lacks("ALLOWED_HOSTS"):
        yield "Admin's host", f"{', '.join(chosen.allowed_hosts)} alone (ALLOWED_HOSTS is not set)"
    if not chosen.has_managed_source:
        yield "Mappings", "those published in the admin (neither SCHEMA_URL nor TABLE_MAPPINGS_URL nor a file is set)"
    elif not (chosen.table_mappings_url or chosen.table_mappings_file):
        yield "Mappings", "each table shows the collection of its own name (TABLE_MAPPINGS_URL is not set)"
