"""The races: who enters, what they are set, and what becomes a row of the report.

index      read the input table and index it to CSR                     recli, pandas, lenskit
train      each solver at each rank, by its defaults; then its quality   recli, implicit, lenskit
objective  seconds to implicit's objective after its 15 iterations       recli, implicit
svd        singular triplets to one and the same error                   recli, scipy, sklearn
topk       exact lists of all users, by recli's ials                     recli, implicit, faiss, product
"""

from recli.bench.bench import RunRace
from recli.bench.races.index import index
from recli.bench.races.objective import objective
from recli.bench.races.svd import svd
from recli.bench.races.topk import topk
from recli.bench.races.train import train

RUN: dict[str, RunRace] = {"index": index, "train": train, "objective": objective, "svd": svd, "topk": topk}
