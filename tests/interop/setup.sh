#!/bin/sh
# Install what the real clients need: nsqjs into nsqjs/node_modules, the go-nsq driver into bin/. Runs again quickly.
# A runtime that is not there is named and left out; its tests are then skipped, or fail where CI=true.
set -eu
cd "$(dirname "$0")"

if command -v npm >/dev/null; then
    installed=nsqjs/node_modules/.package-lock.json # npm's own note of what it has put there
    if [ ! -e $installed ] || [ nsqjs/package-lock.json -nt $installed ]; then
        (cd nsqjs && npm ci --no-audit --no-fund --loglevel=error)
    fi
else
    echo "interop: no npm, so no nsqjs"
fi

if command -v go >/dev/null; then
    (cd gonsq && go build -buildvcs=false -o ../bin/gonsq .)
else
    echo "interop: no go, so no go-nsq"
fi
