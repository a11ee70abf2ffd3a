#!/usr/bin/env bash
# Makes lake-of-fab06ff.tar.xz: a small lake, its checkpoints and its Kafka topic, with the code of commit fab06ff.
#
#   git worktree add --detach ../before fab06ff && make -C ../before setup
#   tests/data/make_old_lake.sh ../before tests/data/lake-of-fab06ff.tar.xz
#
# Seeds and event times are fixed. Topic ids, table ids, file names and the times of commits are new in every run.
set -euo pipefail

code=$(realpath "${1:?give a checkout of the commit with .venv and build/jars}")
archive=$(realpath "${2:?give the archive to write}")
python=$code/.venv/bin/python
export PYTHONPATH=$code

work=$(mktemp -d)
cd "$work"
lakehouse() { "$python" -m lakehouse "$@" --config settings.yaml; }
trap 'lakehouse kafka stop || true; rm -rf "$work"' EXIT

# The settings of a laptop as that commit had them, with all their keys. Small batches, so that each stream has several.
ln -s "$code/conf" conf
sed -e 's/^  partitions: 6 /  partitions: 2 /' \
  -e 's/^  max_offsets_per_trigger: 500000 /  max_offsets_per_trigger: 100 /' \
  -e 's/^  max_bytes_per_trigger: 64m /  max_bytes_per_trigger: 20k /' \
  -e 's/^  max_bytes_per_trigger: 1g /  max_bytes_per_trigger: 60k /' "$code/conf/local.yaml" > settings.yaml

produce() { # produce SEED START
  lakehouse produce --quiet --count 500 --seed "$1" --start-time "$2" --span 14400 --customers 20 --endpoints 8 \
    --late-ratio 0.03 --duplicate-ratio 0.05 --conflict-ratio 0.01 --malformed-ratio 0.04 --tombstone-ratio 0.01
}

lakehouse kafka start
produce 1 2026-01-28T06:00:00Z
lakehouse up --trigger available-now
lakehouse dlq discard --rule SLV-003 --reason 'Empty values are of no use.'
lakehouse dlq replay --rule SLV-005
produce 2 2026-01-28T12:00:00Z
lakehouse up --trigger available-now
"$python" "$code/batch/reconcile_gold.py" --config settings.yaml --date 2026-01-28
# What that commit says of its own lake, to compare with. The doctor's exit code is 1: there are open dead letters.
lakehouse verify --json > verify.json
lakehouse doctor --json > doctor.json || [ $? -eq 1 ]
for job in bronze silver gold; do lakehouse checkpoint verify "$job"; done
lakehouse kafka stop

# The broker writes its configuration at every start; logs, and files of processes that have ended, are of no use.
find .lakehouse/kafka -maxdepth 1 -type f -delete
rm -rf .lakehouse/logs
tar --sort=name --owner=0 --group=0 --numeric-owner -cf - settings.yaml verify.json doctor.json .lakehouse | xz -9e > "$archive"
ls -l "$archive"
