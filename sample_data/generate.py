"""Make the sample data: a small synthetic shop, its customers and what they rated.

    python sample_data/generate.py [--out DIR] [--seed N] [--users N] [--items N] [--ratings N]

The defaults reproduce the committed files byte for byte. What is planted, for a recommender to find:

- Taste: users and items are points of an 8-dimensional space. An item lies near the centre of its category; a user
  lies near the mean of the one to three categories that they like. Their scaled dot product is the affinity.
- Long tails: item popularity and user activity follow power laws, activity a roughened one.
- Choice: a user's next item is drawn with probability ~ popularity * exp(CHOICE * affinity), from what is on sale
  and not yet theirs. So popularity helps, and collaborative filtering beats it.
- Rating: level of the user + quality of the item + affinity + noise, rounded to 1..5.
- Time: 18 months that end on a fixed day. Items have release dates and draw attention while they are new; users
  join over time; weekends are busier.
- Side information: an item's words and price follow its category; a user's age band tilts which categories they
  like. That is all there is to go on for the few users and items that occur only in the held-out part.

Affinities are held as one dense users x items array: fine for thousands of each, not for millions.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

RANK = 8
CHOICE = 2.0  # weight of the affinity (unit variance) in what is consumed
TEST_SHARE = 0.2  # of each user's interactions, the latest
MIN_HISTORY = 5  # users with fewer interactions have none held out
DAY = 86_400
START = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp())
END = int(datetime(2025, 7, 1, tzinfo=UTC).timestamp())

AGE_BANDS = ["18-24", "25-34", "35-44", "45-54", "55-64", "65+"]
COUNTRIES = ["DE", "FR", "NL", "PL", "ES", "SE"]
SYLLABLES = ["ba", "dri", "fe", "ki", "lu", "mo", "na", "pe", "qui", "ri", "sol", "ta", "ve", "wen", "yo", "zu"]

# category: typical price, nouns, adjectives, uses
CATALOGUE: dict[str, tuple[float, list[str], list[str], list[str]]] = {
    "audio": (90.0, ["Speaker", "Headphones", "Turntable"], ["warm", "clear", "wireless"], ["music", "podcasts"]),
    "books": (15.0, ["Novel", "Atlas", "Anthology"], ["gripping", "illustrated", "quiet"], ["reading", "long trains"]),
    "camping": (70.0, ["Tent", "Stove", "Lantern"], ["light", "waterproof", "packable"], ["trails", "cold nights"]),
    "cycling": (45.0, ["Saddle", "Pannier", "Helmet"], ["aerodynamic", "padded", "rugged"], ["commuting", "hills"]),
    "games": (30.0, ["Board Game", "Puzzle", "Card Deck"], ["clever", "cooperative", "tense"], ["families", "parties"]),
    "garden": (25.0, ["Trowel", "Planter", "Seed Kit"], ["sturdy", "frost-proof", "leafy"], ["balconies", "borders"]),
    "kitchen": (40.0, ["Pan", "Kettle", "Knife"], ["cast-iron", "sharp", "quick"], ["baking", "weekday suppers"]),
    "stationery": (10.0, ["Notebook", "Pen", "Planner"], ["smooth", "dotted", "refillable"], ["sketching", "lists"]),
    "tea": (12.0, ["Green Tea", "Infuser", "Teapot"], ["floral", "smoky", "loose-leaf"], ["slow mornings", "guests"]),
    "tools": (55.0, ["Drill", "Clamp", "Chisel"], ["precise", "cordless", "hardened"], ["joinery", "repairs"]),
}


@dataclass(frozen=True)
class Items:
    """One entry or row per item, in order of release."""

    category: NDArray[np.int64]
    taste: NDArray[np.float64]
    log_popularity: NDArray[np.float64]
    quality: NDArray[np.float64]
    release: NDArray[np.float64]  # epoch seconds
    cold: NDArray[np.bool_]  # never in the training part


@dataclass(frozen=True)
class Users:
    """One entry or row per user."""

    age: NDArray[np.int64]
    taste: NDArray[np.float64]
    level: NDArray[np.float64]
    activity: NDArray[np.int64]  # interactions, train and test together
    joined: NDArray[np.float64]  # epoch seconds
    cold: NDArray[np.bool_]  # never in the training part


@dataclass(frozen=True)
class Events:
    """One entry per interaction: a user and an item by number, the rating, epoch seconds."""

    user: NDArray[np.int64]
    item: NDArray[np.int64]
    rating: NDArray[np.int64]
    timestamp: NDArray[np.int64]


def make_items(rng: np.random.Generator, centres: NDArray[np.float64], n: int) -> Items:
    category = rng.integers(len(centres), size=n)
    # Four in five are on sale from the start; the rest appear over time, up to ten days before the end.
    release = np.sort(START + np.maximum(0.0, rng.uniform(-4.0, 1.0, n)) * (END - 10 * DAY - START))
    return Items(
        category=category,
        taste=centres[category] + 0.6 * rng.standard_normal((n, RANK)),
        log_popularity=-np.log(1.0 + rng.permutation(n)),
        quality=rng.standard_normal(n),
        release=release,
        cold=np.arange(n) >= n - max(3, n // 100),
    )


def make_users(rng: np.random.Generator, centres: NDArray[np.float64], n: int, events: int, most: int) -> Users:
    age = rng.integers(len(AGE_BANDS), size=n)
    leaning = rng.dirichlet(np.ones(len(centres)), size=len(AGE_BANDS))
    # Gumbel keys: the first k of the order are k categories drawn without replacement, by the age band's leaning.
    order = np.argsort(-(np.log(leaning[age]) + rng.gumbel(size=(n, len(centres)))), axis=1)
    liked = np.arange(3) < rng.integers(1, 4, size=n)[:, None]
    taste = (centres[order[:, :3]] * liked[:, :, None]).sum(axis=1) / liked.sum(axis=1, keepdims=True)

    cold = np.arange(n) < max(5, n // 100)
    rng.shuffle(cold)
    weight = (1.0 + rng.permutation(n)) ** -0.8 * np.exp(0.4 * rng.standard_normal(n))
    limit = np.where(cold, min(10, most), most)
    activity = np.full(n, 2)
    for _ in range(20):  # the limits take from the sum what the others must make up for
        weight *= events / activity.sum()
        activity = np.clip(np.rint(weight), 2, limit).astype(np.int64)

    since = np.where(cold, rng.uniform(0.95, 0.98, n), 0.9 * rng.beta(0.5, 2.0, n))
    return Users(
        age=age,
        taste=taste + 0.4 * rng.standard_normal((n, RANK)),
        level=rng.standard_normal(n),
        activity=activity,
        joined=START + since * (END - START),
        cold=cold,
    )


def draw_times(rng: np.random.Generator, users: Users) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """User and time of every event, users in order and each user's times ascending."""
    edges = np.arange(START, END + 1, DAY)
    weekday = (edges[:-1] // DAY + 3) % 7  # 0 is Monday: the epoch began on a Thursday
    busy = np.concatenate([[0.0], np.cumsum(np.where(weekday >= 5, 1.4, 1.0))])
    user = np.repeat(np.arange(len(users.activity)), users.activity)
    first = np.interp(users.joined, edges, busy)[user]
    time = np.interp(first + rng.random(len(user)) * (busy[-1] - first), busy, edges)
    return user, time[np.lexsort((time, user))]


def simulate(rng: np.random.Generator, users: Users, items: Items) -> Events:
    """Let every user choose and rate. Round k makes the k-th choice of all users who make that many."""
    affinity = users.taste @ items.taste.T
    affinity /= affinity.std()
    user, time = draw_times(rng, users)
    begin = np.cumsum(users.activity) - users.activity
    open_ = np.ones(affinity.shape, dtype=np.bool_)  # not yet theirs
    item = np.empty_like(user)
    for k in range(users.activity.max()):
        active = np.flatnonzero(users.activity > k)
        event = begin[active] + k
        age = time[event, None] - items.release  # users x items, seconds on sale
        novelty = np.where(items.release > START, 1.5 * np.exp(-np.maximum(age, 0.0) / (30 * DAY)), 0.0)
        logit = CHOICE * affinity[active] + items.log_popularity + novelty + rng.gumbel(size=age.shape)
        item[event] = np.where(open_[active] & (age >= 0), logit, -np.inf).argmax(axis=1)
        open_[active, item[event]] = False

    opinion = 3.0 + 0.4 * users.level[user] + 0.4 * items.quality[item] + 0.5 * affinity[user, item]
    rating = np.clip(np.rint(opinion + 0.6 * rng.standard_normal(len(user))), 1, 5)
    return Events(user, item, rating.astype(np.int64), time.astype(np.int64))


def split(events: Events, users: Users, items: Items) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Masks of the training and the held-out events; what a cold item has outside the held-out part is in neither."""
    n = users.activity[events.user]
    nth = np.arange(len(n)) - (np.cumsum(users.activity) - users.activity)[events.user]
    late = (n >= MIN_HISTORY) & (nth >= n - np.rint(TEST_SHARE * n))
    test = late | users.cold[events.user]
    return ~test & ~items.cold[events.item], test


def ratings_frame(events: Events, keep: NDArray[np.bool_], user_ids: pl.Series, item_ids: pl.Series) -> pl.DataFrame:
    frame = pl.DataFrame(
        {
            "user_id": user_ids[events.user[keep]],
            "item_id": item_ids[events.item[keep]],
            "rating": pl.Series(events.rating[keep], dtype=pl.Int8),
            "timestamp": events.timestamp[keep],
        }
    )
    return frame.sort("timestamp", "user_id", maintain_order=True)


def invented_word(number: int) -> str:
    """Different words for different numbers: the digits in base 16, at least three, as syllables."""
    word: list[str] = []
    while number or len(word) < 3:
        number, digit = divmod(number, len(SYLLABLES))
        word.append(SYLLABLES[digit])
    return "".join(word).capitalize()


def items_frame(rng: np.random.Generator, category: NDArray[np.int64]) -> pl.DataFrame:
    n = len(category)
    rows = []
    for number, c in zip(rng.permutation(max(n, len(SYLLABLES) ** 3))[:n], category, strict=True):
        name = list(CATALOGUE)[c]
        price, nouns, adjectives, uses = CATALOGUE[name]
        noun, use = rng.choice(nouns), rng.choice(uses)
        one, two = rng.choice(adjectives, 2, replace=False)
        rows.append(
            {
                "title": f"{invented_word(int(number))} {noun}",
                "category": name,
                "price": round(price * float(np.exp(0.4 * rng.standard_normal())), 2),
                "description": f"{one.capitalize()} and {two} {noun.lower()}. Made for {use}.",
                "in_stock": bool(rng.random() < 0.9),
            }
        )
    ids = 1000 + np.cumsum(rng.integers(1, 10, size=n))  # with gaps, as ids have
    return pl.DataFrame(rows).insert_column(0, pl.Series("item_id", ids))


def users_frame(rng: np.random.Generator, age: NDArray[np.int64]) -> pl.DataFrame:
    n = len(age)
    width = max(4, len(str(n)))
    return pl.DataFrame(
        {
            "user_id": [f"u{i:0{width}d}" for i in range(1, n + 1)],
            "country": [str(c) for c in rng.choice(COUNTRIES, n, p=[0.3, 0.2, 0.15, 0.15, 0.1, 0.1])],
            "age_band": [AGE_BANDS[a] for a in age],
        }
    )


def generate(seed: int, n_users: int, n_items: int, n_ratings: int) -> dict[str, pl.DataFrame]:
    """The four tables by name."""
    # Separate streams, so that a change to the words leaves the ratings as they are.
    world, words = np.random.default_rng(seed).spawn(2)
    centres = world.standard_normal((len(CATALOGUE), RANK))
    items = make_items(world, centres, n_items)
    # Nobody buys more than a third of the shop: there is always something left to choose.
    users = make_users(world, centres, n_users, round(n_ratings / (1 - TEST_SHARE)), n_items // 3)
    events = simulate(world, users, items)
    train, test = split(events, users, items)
    item_table, user_table = items_frame(words, items.category), users_frame(words, users.age)
    ids = user_table["user_id"], item_table["item_id"]
    return {
        "ratings": ratings_frame(events, train, *ids),
        "test": ratings_frame(events, test, *ids),
        "items": item_table,
        "users": user_table,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the synthetic sample data.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="default: the folder of this script")
    parser.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--users", type=int, default=1200, help="at least 20; default: %(default)s")
    parser.add_argument("--items", type=int, default=600, help="at least 30; default: %(default)s")
    parser.add_argument("--ratings", type=int, default=25_000, help="training rows, about; default: %(default)s")
    args = parser.parse_args()
    if args.seed < 0 or args.users < 20 or args.items < 30:
        parser.error("--seed must be at least 0, --users at least 20, --items at least 30")
    if not 4 * args.users <= args.ratings <= args.users * args.items // 5:
        parser.error("--ratings must lie between 4 per user and a fifth of all user-item pairs")

    tables = generate(args.seed, args.users, args.items, args.ratings)
    args.out.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.write_parquet(args.out / f"{name}.parquet")
    tables["ratings"].write_csv(args.out / "ratings.csv")


if __name__ == "__main__":
    main()
