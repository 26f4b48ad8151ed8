//! Size and shape of a Rust file: its header, its length, its functions, and tests last.
//! The limits are those of the house style; a file that breaks one is split, never excepted.

use crate::Finding;
use crate::lexer::{Token, matching};
use crate::source::Source;

/// The 90th percentile of the code bases that the style was learnt from is well below; inline tests do not count.
const FILE_LINES_MAX: usize = 800;

/// What fits a screen, from the line of `fn` to the closing brace.
const FUNCTION_LINES_MAX: usize = 70;

pub(crate) fn check(source: &Source) -> Vec<Finding> {
    let mut findings = long_functions(source);
    findings.extend(file_length(source));
    findings.extend(header(source));
    findings.extend(code_after_tests(source));
    findings
}

fn file_length(source: &Source) -> Option<Finding> {
    let line_count = source.text.lines().count();
    let counted = (1..=line_count).filter(|&line| !source.is_inline_test(line)).count();
    (counted > FILE_LINES_MAX).then(|| {
        let advice =
            format!("{counted} lines without inline tests, at most {FILE_LINES_MAX}; split the file by its nouns");
        Finding::new(&source.path, 0, advice)
    })
}

fn header(source: &Source) -> Option<Finding> {
    let first = source.text.lines().next().unwrap_or_default();
    let says_something = first.strip_prefix("//!").is_some_and(|rest| !rest.trim().is_empty());
    (!says_something).then(|| {
        let advice = "open the file with `//!` lines: what it owns, what it must never do, the invariant it keeps";
        Finding::new(&source.path, 1, advice)
    })
}

fn long_functions(source: &Source) -> Vec<Finding> {
    let tokens = &source.tokens;
    let mut findings = Vec::new();
    for (at, (line, token)) in tokens.iter().enumerate() {
        if *token != Token::Word("fn".to_owned()) {
            continue;
        }
        // A function pointer type has no name.
        let Some((_, Token::Word(name))) = tokens.get(at + 1) else {
            continue;
        };
        let Some(last) = body_end(source, at) else {
            continue;
        };
        let lines = last - line + 1;
        if lines > FUNCTION_LINES_MAX {
            let advice =
                format!("fn {name} has {lines} lines, at most {FUNCTION_LINES_MAX}; take a step of it out and name it");
            findings.push(Finding::new(&source.path, *line, advice));
        }
    }
    findings
}

/// The line of the closing brace of the function at `start`; none for a declaration without a body.
fn body_end(source: &Source, start: usize) -> Option<usize> {
    let tokens = &source.tokens;
    let mut at = start;
    loop {
        match tokens.get(at)?.1 {
            Token::Mark('(') => at = matching(tokens, at, '(', ')')?,
            Token::Mark('[') => at = matching(tokens, at, '[', ']')?,
            Token::Mark('{') => return Some(tokens[matching(tokens, at, '{', '}')?].0),
            Token::Mark(';') => return None,
            _ => {}
        }
        at += 1;
    }
}

/// A declaration, `mod tests;`, may stand beside the other modules; a body comes last.
fn code_after_tests(source: &Source) -> Option<Finding> {
    let opening = [Token::Word("mod".to_owned()), Token::Word("tests".to_owned()), Token::Mark('{')];
    let tokens = &source.tokens;
    let at = tokens.windows(opening.len()).position(|window| {
        let opens = window.iter().map(|(_, token)| token).eq(opening.iter());
        opens && source.is_inline_test(window[0].0)
    })?;
    let end = matching(tokens, at + 2, '{', '}')?;
    let (line, _) = tokens.get(end + 1)?;
    Some(Finding::new(&source.path, *line, "move this above `mod tests`: the tests come last"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<Finding> {
        check(&Source::new(path, text))
    }

    fn function(lines: usize) -> String {
        format!("fn long(a: [u8; 4]) {{\n{}}}\n", "    x();\n".repeat(lines - 2))
    }

    #[test]
    fn a_file_over_the_limit_fires_and_inline_tests_do_not_count() {
        let code = "const A: u8 = 1;\n".repeat(FILE_LINES_MAX - 1);
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "    const B: u8 = 1;\n".repeat(900));
        assert!(findings("agent/src/x.rs", &format!("//! X.\n{code}{tests}")).is_empty());
        assert_eq!(findings("agent/src/x.rs", &format!("//! X.\n{code}\n")).len(), 1);
        assert_eq!(findings("agent/src/x/tests.rs", &format!("//! X.\n{code}\n")).len(), 1);
    }

    #[test]
    fn a_function_over_the_limit_fires_at_its_line() {
        let fits = format!("//! X.\n{}", function(FUNCTION_LINES_MAX));
        assert!(findings("agent/src/x.rs", &fits).is_empty());
        let long = format!("//! X.\n\n{}", function(FUNCTION_LINES_MAX + 1));
        let found = findings("agent/src/x.rs", &long);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].line, 3);
    }

    #[test]
    fn a_declaration_without_a_body_has_no_length() {
        let text = format!("//! X.\ntrait T {{\n fn a(&self, b: [u8; 2]);\n{} fn c();\n}}\n", " type D;\n".repeat(90));
        assert!(findings("agent/src/x.rs", &text).is_empty());
    }

    #[test]
    fn a_file_without_a_header_fires() {
        for text in ["", "use a::b;\n", "//!\n", "// Plain.\n", "#![allow(x)]\n//! Late.\n"] {
            assert_eq!(findings("agent/src/x.rs", text).len(), 1, "{text:?} passed");
        }
    }

    #[test]
    fn code_behind_the_tests_fires() {
        let found = findings("agent/src/x.rs", "//! X.\n#[cfg(test)]\nmod tests {\n}\n\nfn late() {}\n");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].line, 6);
    }
    #[test]
    fn declared_tests_may_stand_among_modules() {
        let text = "//! X.\n#[cfg(test)]\nmod tests;\nmod wire;\n";
        assert!(findings("agent/src/x/mod.rs", text).is_empty());
    }
}
