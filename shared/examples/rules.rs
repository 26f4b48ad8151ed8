//! Prints `docs/rule-metrics.md`; `make docs` writes it.

fn main() -> std::io::Result<()> {
    use std::io::Write as _;
    std::io::stdout().write_all(dunlin_shared::rule::reference().as_bytes())
}
