# Every task there is; `just` lists them.
default:
    @just --list

# Build, start an engine if none runs, and run a container
hello:
    cargo run --release -- run --rm ferry/hello

# Set up, build once, run every test (or those whose name contains a filter)
test *FILTER:
    cargo xtask test {{FILTER}}

# What a change must pass: format, rules, tests, clippy
ci:
    .ci/run

# The repository's own rules
tidy:
    cargo xtask tidy

fmt:
    cargo fmt --all

lint:
    cargo clippy --workspace --all-targets -- -D warnings

# Measure beside Docker Engine and write the table into docs/benchmarks.md
bench *ARGS:
    cargo xtask bench --write {{ARGS}}

# The binary that is shipped
dist:
    cargo xtask dist

# The same tests against the real Docker Engine: are the expectations right?
test-docker *FILTER:
    FERRY_TEST_ENGINE=docker cargo nextest run --release --package ferry-e2e {{FILTER}}
