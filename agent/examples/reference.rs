//! Prints `packaging/agent.toml`, the configuration with every key explained; `make docs` writes it.

fn main() -> std::io::Result<()> {
    use std::io::Write as _;
    let text = dunlin_shared::config::render_reference(dunlin_agent::config::SCHEMA);
    std::io::stdout().write_all(text.as_bytes())
}
