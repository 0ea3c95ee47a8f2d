#!/bin/sh
# Builds the real nsqd, nsqlookupd, nsqadmin, nsqd's tools and its bench tools into bin/ beside this file. The first run
# fetches the modules named in go.mod; later ones work offline. Exit code 1, with a line saying what will be missing, when
# they cannot be had.
set -u
cd "$(dirname "$0")" || exit 1

missing() {
    echo "bench/peers: $1: the nsqd column and the bench_writer/bench_reader rows, and what tests/field runs, will be missing" >&2
    exit 1
}

command -v go >/dev/null || missing "no Go toolchain (go) on the PATH"
mkdir -p bin
go build -o bin/ \
    github.com/nsqio/nsq/apps/nsqd \
    github.com/nsqio/nsq/apps/nsqlookupd \
    github.com/nsqio/nsq/apps/nsqadmin \
    github.com/nsqio/nsq/apps/nsq_stat \
    github.com/nsqio/nsq/apps/nsq_tail \
    github.com/nsqio/nsq/apps/nsq_to_file \
    github.com/nsqio/nsq/apps/nsq_to_http \
    github.com/nsqio/nsq/apps/nsq_to_nsq \
    github.com/nsqio/nsq/apps/to_nsq \
    github.com/nsqio/nsq/bench/bench_writer \
    github.com/nsqio/nsq/bench/bench_reader \
    github.com/nsqio/nsq/bench/bench_channels || missing "go build failed"
