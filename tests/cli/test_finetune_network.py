"""Tables of a network, built with plain NumPy, from import to adapted lists: nothing of recli makes the rows here."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from recli.cli.main import main
from tests.conftest import Outcome

Recli = Callable[..., Outcome]
Doubles = NDArray[np.float64]
USERS, ITEMS, RANK, K = 240, 150, 8, 10
TRAIN, HELD = 14, 6  # pairs a user
MERGE = "finetune --base-users {} --base-items {} --base-user-ids users.txt --base-item-ids items.csv --merge -q -o {}"
LORA = ("--adapter", "lora", "--rank", 2, "--epochs", 12, "--learning-rate", 0.02)
TABLES = {
    "npy": ("u.npy", "i.npy"),
    "npz": ("both.npz:user/embedding", "both.npz:item/embedding"),
    "safetensors": ("net.safetensors:user.weight", "net.safetensors:item.weight"),
    "two files": ("u.npy", "net.safetensors:item.weight"),
}
USER_IDS, ITEM_IDS = [f"user-{n * 7919 % 1000:03}" for n in range(USERS)], [f"Café {n}" for n in range(ITEMS)]


def tables() -> tuple[Doubles, Doubles]:
    """What the network learnt: preferences p . q of rank 8, as float32."""
    rng = np.random.default_rng(11)
    return tuple(rng.normal(size=(n, RANK)).astype(np.float32).astype(float) for n in (USERS, ITEMS))  # type: ignore[return-value]


def shifted(P: Doubles) -> Doubles:
    """Tastes that moved since, all in the same two directions."""
    rng = np.random.default_rng(12)
    return P + 1.5 * rng.normal(size=(USERS, 2)) @ np.linalg.qr(rng.normal(size=(RANK, 2)))[0].T


def chosen(scores: Doubles) -> NDArray[np.int64]:
    """What each user takes, without repeats: as softmax draws (Gumbel's trick), in random order."""
    rng = np.random.default_rng(13)
    return np.asarray(np.argsort(-(1.5 * scores + rng.gumbel(size=scores.shape)), axis=1)[:, : TRAIN + HELD])


def write_pairs(scores: Doubles) -> None:
    """new.csv, to learn from, and held.csv: other pairs of the same tastes."""
    taken = np.random.default_rng(14).permuted(chosen(scores), axis=1)
    for name, part in (("new", taken[:, :TRAIN]), ("held", taken[:, TRAIN:])):
        rows = [(USER_IDS[user], ITEM_IDS[item]) for user, items in enumerate(part) for item in items]
        pl.DataFrame(rows, ["user", "item"], orient="row").write_csv(f"{name}.csv")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables in all formats, ids, and pairs of the moved tastes, to learn from and held out."""
    folder = tmp_path_factory.mktemp("made")
    P, Q = tables()
    P32, Q32 = P.astype(np.float32), Q.astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        np.save("u.npy", P32)
        np.save("i.npy", Q)
        np.savez("both.npz", **{"user/embedding": P, "item/embedding": Q32, "tower/bias": np.zeros(3)})  # type: ignore[arg-type]
        save_file({"user.weight": P32, "item.weight": Q32, "tower.bias": np.zeros(3, np.float32)}, "net.safetensors")
        Path("users.txt").write_text("\n".join(USER_IDS))
        pl.DataFrame({"item": ITEM_IDS, "title": [name.upper() for name in ITEM_IDS]}).write_csv("items.csv")
        write_pairs(shifted(P) @ Q.T)
        assert main(MERGE.format(*TABLES["npy"], "network.npz").split()) == 0
    return folder


@pytest.fixture(autouse=True)
def here(_clean: None, made: Path) -> None:
    shutil.copytree(made, ".", dirs_exist_ok=True)


def best(scores: Doubles, k: int = K) -> list[tuple[str, str]]:
    """Lists by plain dot products, users in the order of their rows."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return [(USER_IDS[user], ITEM_IDS[item]) for user, items in enumerate(order) for item in items]


def lists(recli: Recli, *flags: object, k: int = K) -> pl.DataFrame:
    assert recli("score", *flags, "-k", k, "--keep-seen", "-q", "-o", "recs.parquet") == (0, "", "")
    return pl.read_parquet("recs.parquet")


def recall(recli: Recli, *flags: object) -> float:
    apart = ("--keep-seen", "--deny-pairs", "new.csv")  # what was learned is no recommendation
    done = recli("score", *flags, "-k", K, *apart, "--truth", "held.csv", "--json", "-q")
    assert (done.code, done.err) == (0, "")
    result = json.loads(done.out)
    assert result["judged_users"] == USERS
    return float(result[f"recall@{K}"])


def recall_of(scores: Doubles) -> float:
    """The same in NumPy."""
    left, (held, new) = scores.copy(), (set(pl.read_csv(f"{name}.csv").iter_rows()) for name in ("held", "new"))
    for user, item in new:
        left[USER_IDS.index(user), ITEM_IDS.index(item)] = -np.inf
    return len(held & set(best(left))) / (USERS * HELD)


def scores_of(path: str) -> Doubles:
    with np.load(path) as arrays:
        P, Q, b_u, b_v, b = (arrays[name].astype(float) for name in ("P", "Q", "b_u", "b_v", "b"))
    return np.asarray(P @ Q.T + b_u[:, None] + b_v + b)


@pytest.mark.parametrize("kind", TABLES)
def test_an_imported_network_ranks_as_its_dot_products_do(kind: str, recli: Recli) -> None:
    assert recli(*MERGE.format(*TABLES[kind], "m.npz").split()) == (0, "", "")
    P, Q = tables()
    scores, found = P @ Q.T, lists(recli, "m.npz")
    assert list(found.select("user", "item").iter_rows()) == best(scores)
    expected = -np.sort(-scores, axis=1)[:, :K]
    np.testing.assert_allclose(found["score"].to_numpy().reshape(USERS, K), expected, rtol=1e-5, atol=1e-5)
    assert set(found["reason"]) == {"model"}
    everything = itertools.product(enumerate(USER_IDS), enumerate(ITEM_IDS))
    pairs = [(user, item, scores[u, i]) for (u, user), (i, item) in everything]
    pl.DataFrame(pairs, ["user", "item", "score"], orient="row").write_csv("pairs.csv")
    assert recli("score", "m.npz", "--pairs", "pairs.csv", "-q", "-o", "out.parquet").code == 0
    np.testing.assert_allclose(
        pl.read_parquet("out.parquet")["score"], [pair[2] for pair in pairs], rtol=1e-4, atol=1e-5
    )


def test_formats_give_the_same_model(recli: Recli) -> None:
    """But for where it comes from, which says on what its deltas are trained."""
    found = {}
    for kind in TABLES:
        assert recli(*MERGE.format(*TABLES[kind], "m.npz").split()).code == 0
        with np.load("m.npz") as arrays:
            found[kind] = {name: arrays[name].tobytes() for name in arrays.files if name != "header"}
    assert all(arrays == found["npy"] for arrays in found.values())


def test_columns_of_ones_carry_the_biases_of_a_network(recli: Recli) -> None:
    """A network's b_u, b_v go with its rows: p, b_u, 1 and q, 1, b_v."""
    P, Q = tables()
    rng = np.random.default_rng(15)
    b_u, b_v = rng.normal(size=USERS), 3 * rng.normal(size=ITEMS)
    np.save("u.npy", np.column_stack([P, b_u, np.ones(USERS)]).astype(np.float32))
    np.save("i.npy", np.column_stack([Q, np.ones(ITEMS), b_v]).astype(np.float32))
    assert recli(*MERGE.format("u.npy", "i.npy", "m.npz").split()).code == 0
    scores = P @ Q.T + b_u[:, None] + b_v
    found = lists(recli, "m.npz")
    assert list(found.select("user", "item").iter_rows()) == best(scores)
    assert best(scores) != best(P @ Q.T)


def test_lora_follows_tastes_that_moved_and_going_back_is_leaving_it_out(recli: Recli) -> None:
    P, Q = tables()
    before = recall(recli, "network.npz")
    assert before == pytest.approx(recall_of(P @ Q.T), abs=1e-6)
    done = recli("finetune", "network.npz", "new.csv", *LORA, "-o", "d.npz")
    assert done.code == 0
    assert "recli finetune: lora (gradient): trained " in done.err
    after = recall(recli, "network.npz", "--adapter", "d.npz")
    assert after > before + 0.15
    assert after < recall_of(shifted(P) @ Q.T) + 0.05  # the truth itself is the bound
    assert recli("finetune", "network.npz", "--adapter-file", "d.npz", "--merge", "-q", "-o", "merged.npz").code == 0
    assert recall(recli, "merged.npz") == after
    assert list(lists(recli, "merged.npz").select("user", "item").iter_rows()) == best(scores_of("merged.npz"))
    change = scores_of("merged.npz") - P @ Q.T
    sizes = np.linalg.svd(change, compute_uv=False)
    assert sizes[4 + 4] < 1e-4 * sizes[0]  # of users two directions, of items two: the change's rank is four at most
    assert recall(recli, "network.npz") == before


@pytest.mark.parametrize("store", ["int8", "f16"])
def test_a_compressed_network_is_adapted_too(store: str, recli: Recli) -> None:
    assert recli("factorize", "--import", "network.npz", "--store", store, "-q", "-o", "small.npz") == (0, "", "")
    assert Path("small.npz").stat().st_size < 0.8 * Path("network.npz").stat().st_size
    whole, small = (
        set(lists(recli, f"{name}.npz").select("user", "item").iter_rows()) for name in ("network", "small")
    )
    assert len(whole & small) > 0.95 * len(whole)
    before = recall(recli, "small.npz")
    assert before == pytest.approx(recall(recli, "network.npz"), abs=0.02)
    assert recli("finetune", "small.npz", "new.csv", *LORA, "-q", "-o", "d.npz") == (0, "", "")
    after = recall(recli, "small.npz", "--adapter", "d.npz")
    assert after > before + 0.15
    assert recli("finetune", "network.npz", "new.csv", *LORA, "-q", "-o", "exact.npz").code == 0
    assert after == pytest.approx(recall(recli, "network.npz", "--adapter", "exact.npz"), abs=0.03)
    refused = recli("score", "network.npz", "--adapter", "d.npz", "--keep-seen", "-q", "-o", "recs.parquet")
    assert (refused.code, "d.npz: it is an adapter for another base" in refused.err) == (65, True)
    assert recli("finetune", "small.npz", "--adapter-file", "d.npz", "--merge", "-q", "-o", "merged.npz").code == 0
    assert lists(recli, "merged.npz").equals(lists(recli, "small.npz", "--adapter", "d.npz"))


def test_tables_are_a_base_without_a_model(recli: Recli) -> None:
    """A delta that was trained on tables is for these tables, with these ids; merged, they are a model."""
    base = MERGE.format(*TABLES["npz"], "x").partition(" --merge")[0].split()
    assert recli(*base, "new.csv", *LORA, "-q", "-o", "d.npz") == (0, "", "")
    assert recli(*base, "--adapter-file", "d.npz", "--merge", "-q", "-o", "merged.npz") == (0, "", "")
    assert recall(recli, "merged.npz") > recall(recli, "network.npz") + 0.15
    Path("users.txt").write_text("\n".join(USER_IDS[::-1]))
    refused = recli(*base, "--adapter-file", "d.npz", "--merge", "-q", "-o", "other.npz")
    assert (refused.code, "d.npz: it is an adapter for another base" in refused.err) == (65, True)
    assert not Path("other.npz").exists()


def test_a_file_that_implicit_saved_is_a_base(recli: Recli) -> None:
    """As BPR saves it: the last column of items are biases, and that of users ones."""
    P, Q = tables()
    b_v = np.random.default_rng(16).normal(size=ITEMS)
    rows = {"user_factors": np.column_stack([P, np.ones(USERS)]), "item_factors": np.column_stack([Q, b_v])}
    np.savez("implicit.npz", **rows, verify_negative_samples=True)  # type: ignore[arg-type]
    users, items = ({name: at for at, name in enumerate(ids)} for ids in (USER_IDS, ITEM_IDS))
    numbered = [(users[user], items[item]) for user, item in pl.read_csv("new.csv").iter_rows()]
    pl.DataFrame(numbered, ["user", "item"], orient="row").write_csv("numbered.csv")
    done = recli("finetune", "implicit.npz", "numbered.csv", "--adapter", "bias", "--epochs", 2, "-q", "-o", "d.npz")
    assert done == (0, "", "")
    assert recli("finetune", "implicit.npz", "--adapter-file", "d.npz", "--merge", "-q", "-o", "m.npz").code == 0
    with np.load("m.npz") as merged, np.load("d.npz") as delta:
        np.testing.assert_allclose(merged["P"], P, rtol=1e-6)
        np.testing.assert_allclose(merged["Q"], Q, rtol=1e-6)
        expected = b_v.astype(np.float32)
        expected[delta["part_items"]] += delta["part_b_v"][:, 0]
        np.testing.assert_allclose(merged["b_v"], expected, rtol=1e-6)
        assert delta["part_b_v"].any()


@pytest.mark.parametrize("adapter", ["rows", "full"])
def test_rows_that_are_free_follow_too(adapter: str, recli: Recli) -> None:
    flags = ("--adapter", adapter, "--epochs", 12, "--learning-rate", 0.02, "-q", "-o", "d.npz")
    assert recli("finetune", "network.npz", "new.csv", *flags) == (0, "", "")
    assert recall(recli, "network.npz", "--adapter", "d.npz") > recall(recli, "network.npz") + 0.05


@pytest.mark.parametrize("adapter", ["bilinear", "scale"])
def test_what_moved_for_all_alike_is_found_by_few_numbers(adapter: str, recli: Recli) -> None:
    """The truth is p M q: M turns one direction round, or factors grow and shrink."""
    P, Q = tables()
    rng = np.random.default_rng(17)
    way = np.linalg.qr(rng.normal(size=(RANK, 1)))[0]
    M = np.eye(RANK) - 2 * way @ way.T if adapter == "bilinear" else np.diag([2.0, 0, 1, 0, 2, 0, 1, 0])
    write_pairs(P @ M @ Q.T)
    flags = ("--adapter", adapter, "--epochs", 12, "--learning-rate", 0.02, "-o", "d.npz")
    assert (
        recli("finetune", "network.npz", "new.csv", *flags, *(["--rank", 2] if adapter == "bilinear" else [])).code == 0
    )
    assert recall(recli, "network.npz", "--adapter", "d.npz") > recall(recli, "network.npz") + 0.05
    with np.load("d.npz") as delta:
        assert sum(delta[name].size for name in delta.files if name.startswith("part_")) <= 4 * RANK
