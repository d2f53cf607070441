//! Whole-program tests live in `tests/`, one file a theme. Each runs against a Ferry daemon of its own, or, with
//! `FERRY_TEST_ENGINE=docker`, against the real Docker Engine: an expectation that fails there is wrong.
