"""A small, believable chat app in MongoDB: what ``make run`` shows. ``sample_mappings.json`` maps it.

Users and rooms have string ids, messages and accounts ObjectIds. Rooms of several kinds share one collection, and so do
people's messages and the system's.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from bson import ObjectId

if TYPE_CHECKING:
    from pymongo.database import Database

Document: TypeAlias = "dict[str, object]"

MAPPINGS_FILE: Final = Path(__file__).with_name("sample_mappings.json")
SEED: Final = 20240501
START: Final = datetime(2024, 5, 1, 8, 0, tzinfo=UTC)

PEOPLE: Final = (
    "Ada Moreau", "Ben Okafor", "Chiara Lund", "Dev Patel", "Elif Kaya", "Farid Haddad", "Greta Holm", "Hugo Silva",
    "Ines Costa", "Jonas Weber", "Kaori Mori", "Leo Novak", "Mina Park", "Nils Berg", "Olga Petrova", "Paul Mensah",
    "Quinn Walsh", "Rosa Vidal", "Sami Niemi", "Tara Singh",
)  # fmt: skip
CITIES: Final = (
    ("Lisbon", "1100-148"),
    ("Oslo", "0150"),
    ("Lyon", "69001"),
    ("Accra", "GA-183"),
    ("Kyoto", "600-8001"),
)
ROOMS: Final = (
    ("general", "channel", "General"), ("announcements", "channel", "Announcements"), ("support", "channel", "Support"),
    ("random", "channel", "Random"), ("design", "group", "Design"), ("backend", "group", "Backend"),
    ("hiring", "group", "Hiring"), ("offsite", "group", "Offsite 2024"),
    ("ada-ben", "chat", ""), ("dev-elif", "chat", ""), ("kaori-leo", "chat", ""), ("rosa-tara", "chat", ""),
)  # fmt: skip
OPENINGS: Final = (
    "Has anyone seen",
    "I just finished",
    "Could you look at",
    "Let us talk about",
    "Thanks for",
    "I like",
)
SUBJECTS: Final = (
    "the new sketches",
    "the release notes",
    "the slow query",
    "tomorrow's demo",
    "the café menu",
    "the tests",
)
ENDINGS: Final = ("?", "!", ".", " 🙂", " when you have a minute.", ", please.")
ACCOUNTS: Final = (
    ("Northwind", "team"), ("Blue Harbour", "free"), ("Atelier Sud", "team"), ("Kitefish", "enterprise"),
    ("Oakline", "free"),
)  # fmt: skip


def load(database: Database[Document]) -> None:
    """Fill the collections ``users``, ``rooms``, ``messages`` and ``accounts``, each only where it is empty.

    The content is the same each time.
    """
    chance = random.Random(SEED)  # noqa: S311 -- sample content, no secrets
    users = _users(chance)
    rooms = _rooms(chance, users)
    content = {
        "users": users,
        "rooms": rooms,
        "messages": _messages(chance, users, rooms),
        "accounts": _accounts(chance, users),
    }
    for name, documents in content.items():
        if database[name].find_one({}, {"_id": 1}) is None:
            database[name].insert_many(documents)


def _object_id(chance: random.Random, moment: datetime) -> ObjectId:
    """As a driver makes them, of a moment and noise, but the same each time."""
    return ObjectId(int(moment.timestamp()).to_bytes(4, "big") + chance.randbytes(8))


def _users(chance: random.Random) -> list[Document]:
    users: list[Document] = []
    for number, name in enumerate(PEOPLE):
        first = name.split()[0].lower()
        city, zip_code = chance.choice(CITIES)
        user: Document = {
            "_id": first,
            "name": name,
            "email": f"{first}@example.com",
            "age": chance.randint(19, 64),
            "admin": number == 0,
            "address": {"street": f"{chance.randint(1, 120)} Harbour Street", "city": city, "zip": zip_code},
            "joinedAt": START + timedelta(days=number, minutes=chance.randint(0, 600)),
        }
        if chance.random() < 0.5:
            user["bio"] = f"{chance.choice(('Runs', 'Cooks', 'Paints', 'Reads'))} after work."
        users.append(user)
    return users


def _rooms(chance: random.Random, users: list[Document]) -> list[Document]:
    rooms: list[Document] = []
    for number, (slug, kind, title) in enumerate(ROOMS):
        room: Document = {"_id": slug, "type": kind, "createdAt": START + timedelta(hours=number)}
        if kind == "chat":
            room["members"] = slug.split("-")
        else:
            room["title"] = title
            room["members"] = sorted(str(user["_id"]) for user in chance.sample(users, chance.randint(4, 12)))
        if kind == "channel":
            room["topic"] = f"All about {title.lower()}"
            room["archived"] = slug == "random"
        rooms.append(room)
    return rooms


def _messages(chance: random.Random, users: list[Document], rooms: list[Document]) -> list[Document]:
    messages: list[Document] = []
    moment = START + timedelta(days=30)
    for number in range(300):
        moment += timedelta(seconds=chance.randint(5, 900))
        message: Document = {
            "_id": _object_id(chance, moment),
            "roomId": chance.choice(rooms)["_id"],
            "sentAt": moment,
        }
        if number % 10 == 0:
            who = chance.choice(users)["_id"]
            message["system"] = {"kind": chance.choice(("joined", "left", "renamed")), "userId": who}
        else:
            message["authorId"] = chance.choice(users)["_id"]
            message["text"] = f"{chance.choice(OPENINGS)} {chance.choice(SUBJECTS)}{chance.choice(ENDINGS)}"
            message["reactions"] = {emoji: chance.randint(1, 5) for emoji in ("👍", "🎉") if chance.random() < 0.2}
            if chance.random() < 0.1:
                message["editedAt"] = moment + timedelta(minutes=3)
        messages.append(message)
    return messages


def _accounts(chance: random.Random, users: list[Document]) -> list[Document]:
    accounts: list[Document] = []
    for number, (name, plan) in enumerate(ACCOUNTS):
        moment = START + timedelta(days=number)
        members = [
            {
                "userId": user["_id"],
                "role": "owner" if place == 0 else "member",
                "since": moment + timedelta(days=place),
            }
            for place, user in enumerate(users[number * 4 : number * 4 + 4])
        ]
        accounts.append(
            {
                "_id": _object_id(chance, moment),
                "name": name,
                "plan": plan,
                "seats": len(members) + chance.randint(0, 10),
                "billing": {"currency": "EUR", "monthly": chance.choice((0, 49, 199.5))},
                "createdAt": moment,
                "members": members,
            }
        )
    return accounts
