"""Every error that zerosource raises on purpose, as one tree.

Each class's docstring is its default message. ``code`` is stable and appears in logs and in the admin;
``retryable`` says whether the same call may succeed later without anybody's help; ``remedy`` is what an
operator can do.
"""

from __future__ import annotations

from typing import NamedTuple

# Characters of a mapping's key or value that an error quotes: a file may hold megabytes of it.
MOST_QUOTED = 1000


class ZerosourceError(Exception):
    """Something went wrong in zerosource."""

    code = "ZS000"
    retryable = False
    remedy = "Report this, with the log lines around it."

    def __init__(self, message: str = "", *, remedy: str = "") -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())
        if remedy:
            self.remedy = remedy

    @property
    def exit_code(self) -> int:
        """What a process ends with that ends by it: EX_TEMPFAIL or EX_CONFIG of sysexits.h."""
        return 75 if self.retryable else 78

    @property
    def message(self) -> str:
        """The problem alone, without code and remedy."""
        return str(self.args[0])

    def __str__(self) -> str:
        return f"{self.code} {self.message} {self.remedy}".rstrip()


class SettingError(ZerosourceError):
    """A setting has a wrong value."""

    code = "ZS101"
    remedy = "Correct the environment variable that the message names and start again."


class ConfigurationUnavailable(ZerosourceError):
    """The schema or the table mappings could not be loaded."""

    code = "ZS102"
    retryable = True
    remedy = "Check that SCHEMA_URL/SCHEMA_FILE and TABLE_MAPPINGS_URL/TABLE_MAPPINGS_FILE can be read from here."


class DatabaseUnavailable(ZerosourceError):
    """The database did not answer."""

    code = "ZS103"
    retryable = True
    remedy = "Check DATABASE_URL, and that the database runs and can be reached from here."

    @classmethod
    def of(cls, error: Exception) -> DatabaseUnavailable | DatabaseRefused:
        """Return the error for what Django raised, its words in one line."""
        words = " ".join(str(error).split()).rstrip(".?")
        # PostgreSQL gives no code where it refuses a connection; words of another language count as a passing fault.
        if "FATAL" in words and any(sign in words for sign in DatabaseRefused.signs):
            return DatabaseRefused(f"The database refuses the connection: {words}.")
        return cls(f"The database did not answer: {words}.")


class DatabaseRefused(ZerosourceError):
    """The database refuses us."""

    code = "ZS104"
    remedy = "Correct the user, the password or the database in DATABASE_URL, or make that database."
    signs = ("authentication failed", "does not exist", "no pg_hba.conf entry", "not permitted to log in")


class DatabaseDamaged(ZerosourceError):
    """A row of the database holds what was never written there."""

    code = "ZS105"
    remedy = "Restore the database from a backup, or correct what the message names."


class MappingError(ZerosourceError):
    """A table mapping is not valid."""

    code = "ZS110"
    remedy = ""

    def __init__(self, place: str, problem: str) -> None:
        """``place`` is the dotted path of the key at fault, such as ``tables.message.columns.id.type``."""
        super().__init__(f"{_shown(place)}: {_shown(problem)}")
        self.place = place
        self.problem = problem


def _shown(words: str) -> str:
    return words if len(words) <= MOST_QUOTED else f"{words[:MOST_QUOTED]}…"


class DraftChanged(ZerosourceError):
    """Somebody else changed the draft meanwhile."""

    code = "ZS111"
    remedy = "Look at it as it is now, then decide again."


class RequestRefused(ZerosourceError):
    """The connection asked for something that cannot be served."""

    code = "ZS120"
    remedy = "Correct ZERO_UPSTREAM_DB, ZERO_APP_ID or ZERO_APP_PUBLICATIONS of that zero-cache."


class UnknownPublication(RequestRefused):
    """A publication that was asked for does not exist."""

    code = "ZS121"
    remedy = "Create the publication in the admin, or correct ZERO_APP_PUBLICATIONS of that zero-cache."


class AccessRefused(RequestRefused):
    """The connection has no valid API key."""

    code = "ZS122"
    remedy = (
        "Put a key into ZERO_UPSTREAM_DB of that zero-cache, percent-encoded (ws://zero:KEY@HOST...): one that "
        "createapikey or the admin made, or one of CHANGE_SOURCE_API_KEYS."
    )


class OriginRefused(RequestRefused):
    """A page of another site, or of none, tried to connect."""

    code = "ZS123"
    remedy = "zero-cache sends no Origin. If this page is yours, serve it from this host, named in ALLOWED_HOSTS."


class AccessUnchecked(ZerosourceError):
    """The API key could not be checked."""

    code = "ZS124"
    retryable = True
    remedy = "Check DATABASE_URL and the database. Keys in CHANGE_SOURCE_API_KEYS need no database."


class ViewerRefused(RequestRefused):
    """Changes are shown to staff who may view table mappings and watermarks."""

    code = "ZS125"
    remedy = "Log in at /admin/ as one of them, or have somebody grant these permissions."


class KeyRevoked(AccessRefused):
    """The API key is revoked."""

    code = "ZS126"
    remedy = "Make another key (manage.py createapikey, or the admin) and put it into ZERO_UPSTREAM_DB there."


class KeyExpired(AccessRefused):
    """The API key has expired."""

    code = "ZS127"
    remedy = "Make another key, or give this one a later date (manage.py changeapikey, or the admin)."


class KeyOfAnotherApp(AccessRefused):
    """The API key is bound to other app ids."""

    code = "ZS128"
    remedy = "Use a key of this app id, or bind the key to it too (manage.py changeapikey, or the admin)."


class LimitReached(RequestRefused):
    """Something from outside is over a limit; the classes below say which."""

    code = "ZS130"
    status = 429
    remedy = "Raise the limit that the message names, or see who needs so much."

    def __init__(self, message: str = "", *, remedy: str = "", status: int = 0) -> None:
        """``status`` is the HTTP status of the refusal, where there is one."""
        super().__init__(message, remedy=remedy)
        self.status = status or type(self).status


class ConnectionsExhausted(LimitReached):
    """As many connections are open as MAX_CONNECTIONS allows."""

    code = "ZS131"
    retryable = True
    status = 503
    remedy = "Raise MAX_CONNECTIONS, or see who holds so many."


class KeyExhausted(LimitReached):
    """As many replicas are connected with one key as MAX_CONNECTIONS_PER_KEY allows."""

    code = "ZS132"
    retryable = True
    remedy = "Raise MAX_CONNECTIONS_PER_KEY, or give each zero-cache a key of its own."


class LivePagesExhausted(LimitReached):
    """As many live pages are open as MAX_LIVE_PAGES allows."""

    code = "ZS133"
    retryable = True
    remedy = "Close one, or raise MAX_LIVE_PAGES."


class ReplicasExhausted(LimitReached):
    """As many replicas are known as MAX_REPLICAS allows, and this one is new."""

    code = "ZS134"
    remedy = "Forget replicas that are gone (in the admin, or manage.py forgetreplica), or raise MAX_REPLICAS."


class MessageTooLarge(LimitReached):
    """A message came that is larger than MAX_MESSAGE_BYTES allows."""

    code = "ZS135"
    status = 413
    remedy = "zero-cache sends small ones. Who else has a key?"


class MessagesTooMany(LimitReached):
    """Messages come faster than MAX_MESSAGES_PER_SECOND allows; they are read no faster."""

    code = "ZS136"
    retryable = True
    remedy = "zero-cache sends one for each commit. If it is one, raise MAX_MESSAGES_PER_SECOND."


class RequestTooSlow(LimitReached):
    """A request did not come, or not as a whole, within REQUEST_SECONDS."""

    code = "ZS137"
    status = 408
    remedy = "Raise REQUEST_SECONDS if it came over a slow line."


class RequestTooLarge(LimitReached):
    """A request is larger than allowed."""

    code = "ZS138"
    status = 413
    remedy = "Raise the limit that the message names, if the request was meant well."


class RequestUnreadable(RequestRefused):
    """What came is no HTTP request that a browser, a proxy or a zero-cache sends."""

    code = "ZS139"
    remedy = "Correct what sent it. If a proxy did, have it pass paths and headers on as they came."


class ResetRequired(ZerosourceError):
    """The replica's position cannot be served any more."""

    code = "ZS200"
    remedy = "zero-cache exits with code 14 and syncs anew when its supervisor starts it again."


class WatermarkInvalid(ResetRequired):
    """The watermark is not one of ours."""

    code = "ZS201"


class HistoryLost(ResetRequired):
    """MongoDB's oplog no longer holds the changes after the position."""

    code = "ZS202"
    remedy = "The replica syncs anew. If this happens often, enlarge the oplog."


class FingerprintChanged(ResetRequired):
    """The mappings of the replica's tables changed since it was synced."""

    code = "ZS203"


class WatermarkInFuture(ResetRequired):
    """The watermark is later than anything MongoDB has: it was restored, or is another one."""

    code = "ZS204"


class ResyncWanted(ResetRequired):
    """An operator asked this replica to sync anew."""

    code = "ZS205"


class SourceUnavailable(ZerosourceError):
    """MongoDB did not answer."""

    code = "ZS300"
    retryable = True
    remedy = "Retried until MongoDB is back; check MONGODB_URI and the network if it is not."


class CursorLost(SourceUnavailable):
    """A cursor on MongoDB is gone; it is opened anew."""

    code = "ZS301"
    remedy = "Nothing to do: the read goes on after the last document that was seen."


class ReplyTooLarge(SourceUnavailable):
    """A reply of MongoDB was larger than a message may be; it is read again in smaller batches."""

    code = "ZS302"
    remedy = "Nothing to do."


class ReplyUnreadable(SourceUnavailable):
    """A reply of MongoDB cannot be read."""

    code = "ZS303"
    remedy = "It is asked again. If this stays, see what lies between here and MongoDB, and report it with this line."


class SourceRefused(ZerosourceError):
    """MongoDB refused a command."""

    code = "ZS310"
    remedy = "Read MongoDB's own words in the message."


class PrivilegeMissing(SourceRefused):
    """The MongoDB user lacks a privilege, or is not let in."""

    code = "ZS311"
    remedy = "Grant the MongoDB user what docs/privileges.md lists."


class NotReplicaSet(SourceRefused):
    """MongoDB runs as a standalone server, which has no change streams."""

    code = "ZS312"
    remedy = "Start mongod with --replSet and run rs.initiate() once."


class ServerTooOld(SourceRefused):
    """MongoDB is older than 6.0."""

    code = "ZS313"
    remedy = "Upgrade MongoDB to 6.0 or later."


class CollectionRefused(SourceRefused):
    """A collection is of a kind that cannot be watched."""

    code = "ZS314"
    remedy = "Map the collection that it is made from, or copy its documents into an ordinary one."


class PostImagesMissing(SourceRefused):
    """MongoDB keeps no pre- and post-images of a mapped collection that needs them."""

    code = "ZS315"
    remedy = "Grant collMod on the collection to the MongoDB user (see docs/privileges.md)."


class ShardedCluster(SourceRefused):
    """MongoDB is a sharded cluster, where the end of a transaction cannot be told yet."""

    code = "ZS316"
    remedy = "Point MONGODB_URI at a replica set."


class StoppedAt(NamedTuple):
    """The document at which a table stopped."""

    collection: str
    document_id: object


class TableStopped(ZerosourceError):
    """A document does not fit a table whose error policy is to stop."""

    code = "ZS401"
    retryable = True
    remedy = (
        "Correct the document; the replica goes on by itself. Or give the table another error policy and publish: its "
        "replicas sync anew."
    )

    def __init__(self, table: str, document_id: str, column: str, reason: str, where: StoppedAt) -> None:
        """Takes the words of the ``RowFault``, and ``where`` the document is found."""
        place = f"column {column} of the document" if column else "the document"
        super().__init__(f"Table {table} stopped at {place} with _id {document_id}: {reason}.")
        self.shown_id = document_id
        self.where = where


class KeyNotUnique(SourceRefused):
    """A table's key shows fields that MongoDB does not keep unique."""

    code = "ZS317"
    remedy = "Create a unique index of these fields, or add a column that shows _id to the key."


class RowRejected(ZerosourceError):
    """A document gives no valid row."""

    code = "ZS400"
    remedy = "Correct the document, make the column optional, or change its type."

    def __init__(self, column: str, reason: str) -> None:
        """``column`` is the column at fault; ``reason`` says why, without the document's contents."""
        super().__init__(f"column {column}: {reason}")
        self.column = column
        self.reason = reason
