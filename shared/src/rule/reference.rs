//! `docs/rule-metrics.md`, made from the tables of the language; tests compare it with the committed copy.

use super::function::USAGES;
use super::known::Known;
use super::literal::{BYTE_UNITS, TIME_UNITS};
use super::scope::about;
use crate::metric::{CATALOGUE, Kind};

/// The page as it should be.
#[must_use]
pub fn reference() -> String {
    let mut page = String::from(
        "# What a rule reads\n\nMade from the tables in `shared/src/rule`; `make docs` writes it anew. How a rule is written stands in \
         [rules.md](rules.md).\n\nA rule reads every metric of [metrics.md](metrics.md), every metric `x_*` that a node \
         sends of its own, and what the collector knows by itself:\n\n\
         | metric | about | unit | kind | what it is |\n|---|---|---|---|---|\n",
    );
    for known in Known::ALL {
        let unit = if known.words().is_empty() { known.unit().as_str() } else { "a word" };
        let (name, about, kind) = (known.as_str(), about(known.scope()), known.kind().as_str());
        page.push_str(&format!("| `{name}` | {about} | {unit} | {kind} | {} |\n", known.help()));
    }
    page.push_str("\n## Words\n\n| metric | one of |\n|---|---|\n");
    for known in Known::ALL.into_iter().filter(|known| !known.words().is_empty()) {
        let words: Vec<String> = known.words().iter().map(|word| format!("`{word}`")).collect();
        page.push_str(&format!("| `{}` | {} |\n", known.as_str(), words.join(", ")));
    }
    page.push_str("\n## Functions\n\n| written | what it gives |\n|---|---|\n");
    for (_, usage, help) in USAGES {
        page.push_str(&format!("| `{usage}` | {help} |\n"));
    }
    page.push_str(
        "\n## Units of numbers\n\n| written | what it is |\n|---|---|\n| `%` | a part of a hundred: `90%` is 0.9 |\n",
    );
    for (units, one) in [(BYTE_UNITS, "byte"), (TIME_UNITS, "second")] {
        for (unit, factor) in units {
            let many = if *factor == 1.0 { "" } else { "s" };
            page.push_str(&format!("| `{unit}` | {factor} {one}{many} |\n"));
        }
    }
    page.push_str("| `/s` | behind a size or a plain number: so many in a second, as a rate has it, like `10MB/s` |\n");
    page.push_str("\n## Counters\n\nThese only grow: `rate` and `delta` say by how much, and `avg`, `min` and `max` are refused.\n\n");
    let counters = CATALOGUE.iter().filter(|metric| metric.kind == Kind::Counter).map(|metric| metric.name);
    let known = Known::ALL.into_iter().filter(|known| known.kind() == Kind::Counter).map(Known::as_str);
    let names: Vec<String> = counters.chain(known).map(|name| format!("`{name}`")).collect();
    page.push_str(&names.join(", "));
    page.push_str(".\n");
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::file;

    fn document(name: &str) -> String {
        let path = format!("{}/../docs/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(path).expect("the document is committed")
    }

    #[test]
    fn documented_tables_are_those_of_the_language() {
        let is_same = document("rule-metrics.md") == reference();
        assert!(is_same, "docs/rule-metrics.md is not what the language says; run `make docs`");
    }

    #[test]
    fn documented_rules_are_right() {
        let page = document("rules.md");
        let blocks: Vec<&str> = page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
        assert!(blocks.len() > 5, "the page shows rules");
        for block in blocks {
            if let Err(errors) = file::parse("docs/rules.md", block) {
                panic!("{block}\n{errors:?}");
            }
        }
    }
}
