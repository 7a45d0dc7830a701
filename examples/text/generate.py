"""Write deliveries of invented support tickets: python examples/text/generate.py FOLDER.

The tickets are random combinations of phrases. Equal arguments give equal files.
"""

import argparse
import csv
import random
from datetime import date, timedelta
from pathlib import Path

START = date(2025, 1, 1)
DAYS_PER_DELIVERY, PER_DAY = 60, 20
CHANNELS = ("mail", "form", "chat")
NAMES = ("Ada", "Bao", "Chloé", "Dmitri", "Elif", "Femi", "Grace", "Hiro", "Inés", "Jürgen", "Kwame", "Lena")
PHRASES = {
    "billing": ("the invoice", "my payment", "the refund", "the credit card", "a double charge", "the monthly price"),
    "delivery": ("the parcel", "my delivery", "the courier", "the tracking number", "a broken box", "the address"),
    "technical": ("the app", "my password", "the update", "the login page", "an error message", "the download"),
}
SUBJECTS = {
    "billing": ("Invoice", "Wrong amount", "Refund"),
    "delivery": ("Parcel", "Late delivery", "Wrong address"),
    "technical": ("Error", "Login", "Update"),
}
OPENINGS = ("I have a question about", "There is a problem with", "Please check", "I am still waiting for")
SHARED = (
    "I wrote last week.",
    "Please answer soon.",
    "This is URGENT!",
    "Thank you for your help.",
    "It is not solved.",
)
MIXED = 0.1
"""Share of tickets that also mention the topic of another team."""


def tickets(delivery: int, rows_per_day: int = PER_DAY) -> list[dict[str, str]]:
    """Return the tickets of one delivery, ordered by day."""
    chance = random.Random(delivery)  # noqa: S311 (not for security)
    first = START + timedelta(days=DAYS_PER_DELIVERY * delivery)
    return [
        {"ticket": f"T{delivery}-{day}-{number}", "received": str(first + timedelta(days=day)), **_ticket(chance)}
        for day in range(DAYS_PER_DELIVERY)
        for number in range(rows_per_day)
    ]


def _ticket(chance: random.Random) -> dict[str, str]:
    team = chance.choice(list(PHRASES))
    topics = chance.sample(PHRASES[team], 2)
    if chance.random() < MIXED:
        topics[1] = chance.choice(PHRASES[chance.choice(list(PHRASES))])
    number = chance.randrange(10**6)
    sentences = [
        f"{chance.choice(OPENINGS)} {topics[0]}.",
        f"{chance.choice(OPENINGS)} {topics[1]}.",
        chance.choice(SHARED),
        f"My customer number is {number:06}.",
        f"{chance.choice(NAMES)}",
    ]
    subject = chance.choice(SUBJECTS[team]) if chance.random() < 0.8 else ""
    return {"channel": chance.choice(CHANNELS), "subject": subject, "body": " ".join(sentences), "team": team}


def write_deliveries(folder: Path, deliveries: int = 3, rows_per_day: int = PER_DAY) -> None:
    """Write each delivery as a CSV file."""
    folder.mkdir(parents=True, exist_ok=True)
    for delivery in range(deliveries):
        rows = tickets(delivery, rows_per_day)
        with (folder / f"2025-{delivery + 1}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    write_deliveries(parser.parse_args().folder)
