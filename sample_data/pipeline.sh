#!/usr/bin/env bash
# From ratings to top-10 lists, as a cron job:
#
#     pipeline.sh [DATA [OUT]]        DATA: folder of the tables (this one)    OUT: folder of the results (./out)
#
#     17 3 * * *  PATH=$HOME/venv/bin:$PATH  $HOME/shop/pipeline.sh $HOME/shop/data $HOME/shop/out
#
# -e, -u and pipefail stop at the first command that fails, with its exit status. Nothing is left to clean up: just
# run it again. With -q, recli says nothing unless it fails, and then one line on stderr: that is what cron mails.
set -euo pipefail

DATA=${1:-$(dirname -- "$0")}
OUT=${2:-out}
mkdir -p -- "$OUT"

# recli writes a file under another name and then renames it, so whoever reads it meanwhile, such as a web shop that
# reloads recs.parquet, sees the whole old file or the whole new one. The fixed seed makes reruns give the same bytes.
recli factorize "$DATA/ratings.parquet" --rank 32 --seed 1 -q -o "$OUT/ratings.factors.npz"

# Quality on what users did next. It comes on stdout, and the shell empties the target of a > before the command
# starts; so this file needs its own rename.
recli score "$OUT/ratings.factors.npz" --truth "$DATA/test.parquet" -k 20 -q --json > "$OUT/quality.json.new"
mv -f -- "$OUT/quality.json.new" "$OUT/quality.json"

# Last, so that the lists change only if all went well.
recli score "$OUT/ratings.factors.npz" -k 10 -q -o "$OUT/recs.parquet"
