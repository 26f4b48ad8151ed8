//! One Rust file, read just far enough to be judged: its tokens, its test areas, and its paths resolved through `use`.
//! It is no compiler: macros are read as the tokens they are written in, and `use` binds for the whole file.
//! Line numbers count from 1 everywhere.

use std::collections::HashMap;

use crate::lexer::{Token, Tokens, matching, tokenize};

/// A path as written in code, with its `use` aliases, `self` and `super` resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CodePath {
    pub(crate) line: usize,
    pub(crate) segments: Vec<String>,
}

impl CodePath {
    /// True if this names `banned` or something inside it; a glob import names everything below it.
    pub(crate) fn names(&self, banned: &str) -> bool {
        let banned: Vec<&str> = banned.split("::").collect();
        if self.segments.last().is_some_and(|last| last == "*") {
            let open = &self.segments[..self.segments.len() - 1];
            let shared_len = open.len().min(banned.len());
            return open[..shared_len] == banned[..shared_len];
        }
        self.segments.len() >= banned.len() && self.segments[..banned.len()] == banned[..]
    }

    pub(crate) fn text(&self) -> String {
        self.segments.join("::")
    }
}

#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
    pub(crate) tokens: Tokens,
    /// First and last line of each `#[cfg(test)]` item.
    pub(crate) test_areas: Vec<(usize, usize)>,
    pub(crate) paths: Vec<CodePath>,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let tokens = tokenize(text);
        let test_areas = find_test_areas(&tokens);
        let mut source = Self { path: path.to_owned(), text: text.to_owned(), tokens, test_areas, paths: Vec::new() };
        source.paths = source.resolve_paths();
        source
    }

    /// True for the tests crate, for `tests.rs` of a module, and inside `#[cfg(test)]`.
    pub(crate) fn is_test(&self, line: usize) -> bool {
        self.is_test_file() || self.is_inline_test(line)
    }

    pub(crate) fn is_test_file(&self) -> bool {
        self.path.starts_with("tests/") || self.path.contains("/tests/") || self.path.ends_with("/tests.rs")
    }

    pub(crate) fn is_inline_test(&self, line: usize) -> bool {
        self.test_areas.iter().any(|&(first, last)| (first..=last).contains(&line))
    }

    fn resolve_paths(&self) -> Vec<CodePath> {
        let (uses, plain) = collect_paths(&self.tokens);
        let mut aliases = HashMap::new();
        for (path, alias) in &uses {
            aliases.insert(alias.clone(), path.segments.clone());
        }
        uses.into_iter().map(|(path, _)| path).chain(plain).map(|path| self.resolve(path, &aliases)).collect()
    }

    fn resolve(&self, mut path: CodePath, aliases: &HashMap<String, Vec<String>>) -> CodePath {
        // An alias may stand on an alias; four steps are more than anyone writes.
        for _ in 0..4 {
            let Some(target) = aliases.get(&path.segments[0]) else {
                break;
            };
            if target[0] == path.segments[0] {
                break;
            }
            path.segments.splice(0..1, target.iter().cloned());
        }
        let mut base = module_of(&self.path);
        if self.is_inline_test(path.line) {
            base.push("tests".to_owned());
        }
        let mut used = 0;
        while let Some(segment) = path.segments.get(used) {
            match segment.as_str() {
                "self" => {}
                "super" => drop(base.pop()),
                _ => break,
            }
            used += 1;
        }
        if used > 0 {
            path.segments.splice(0..used, base);
        }
        path
    }
}

/// The module path of a file: `collector/src/engine/eval.rs` is `crate::engine::eval`.
fn module_of(path: &str) -> Vec<String> {
    let mut module = vec!["crate".to_owned()];
    if let Some((_, inner)) = path.split_once("src/") {
        let inner = inner.trim_end_matches(".rs");
        let segments = inner.split('/').map(str::to_owned);
        module.extend(segments.filter(|s| !["mod", "lib", "main"].contains(&s.as_str())));
    }
    module
}

fn find_test_areas(tokens: &[(usize, Token)]) -> Vec<(usize, usize)> {
    let mut areas = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let Some(after) = test_attribute_end(tokens, at) else {
            at += 1;
            continue;
        };
        let end = item_end(tokens, after);
        areas.push((tokens[at].0, tokens[end].0));
        at = end + 1;
    }
    areas
}

/// If `#[cfg(test)]` (or a `cfg` that names `test` and no `not`) starts at `at`, the index after it.
fn test_attribute_end(tokens: &[(usize, Token)], at: usize) -> Option<usize> {
    let opens = [Token::Mark('#'), Token::Mark('['), Token::Word("cfg".to_owned())];
    let starts = tokens[at..].iter().map(|(_, token)| token).take(3).eq(opens.iter());
    if !starts {
        return None;
    }
    let close = matching(tokens, at + 1, '[', ']')?;
    let has = |word: &str| tokens[at..close].iter().any(|(_, t)| *t == Token::Word(word.to_owned()));
    (has("test") && !has("not")).then_some(close + 1)
}

/// The index of the token that ends the item, field or statement which starts at `start`.
fn item_end(tokens: &[(usize, Token)], start: usize) -> usize {
    let mut at = start;
    while at < tokens.len() {
        let skipped = match tokens[at].1 {
            Token::Mark('{') => return matching(tokens, at, '{', '}').unwrap_or(tokens.len() - 1),
            Token::Mark(';') => return at,
            Token::Mark('[') => matching(tokens, at, '[', ']'),
            Token::Mark('(') => matching(tokens, at, '(', ')'),
            _ => None,
        };
        at = skipped.unwrap_or(at) + 1;
    }
    tokens.len() - 1
}

type Aliased = (CodePath, String);

/// Paths of `use` declarations with the name that each binds, and all other paths of two or more segments.
fn collect_paths(tokens: &[(usize, Token)]) -> (Vec<Aliased>, Vec<CodePath>) {
    let (mut uses, mut plain) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < tokens.len() {
        let (line, Token::Word(word)) = &tokens[at] else {
            at += 1;
            continue;
        };
        // `use<'a>` in a return type binds nothing.
        let declares = matches!(tokens.get(at + 1), Some((_, Token::Word(_) | Token::PathSep)));
        if word == "use" && declares {
            at = read_use_tree(tokens, at + 1, &[], &mut uses);
            continue;
        }
        let mut segments = vec![word.clone()];
        at += 1;
        while let [(_, Token::PathSep), (_, Token::Word(next)), ..] = &tokens[at..] {
            segments.push(next.clone());
            at += 2;
        }
        if segments.len() > 1 {
            plain.push(CodePath { line: *line, segments });
        }
    }
    (uses, plain)
}

/// Reads one branch of a `use` tree and returns the index of the token behind it.
fn read_use_tree(tokens: &[(usize, Token)], start: usize, prefix: &[String], out: &mut Vec<Aliased>) -> usize {
    let mut segments = prefix.to_vec();
    let mut alias = None;
    let mut at = start;
    while let Some((line, token)) = tokens.get(at) {
        match token {
            Token::Word(word) if word == "as" => {
                if let Some((_, Token::Word(name))) = tokens.get(at + 1) {
                    alias = Some(name.clone());
                }
                at += 2;
                continue;
            }
            Token::Word(word) if word == "self" && !prefix.is_empty() => {}
            Token::Word(word) => segments.push(word.clone()),
            Token::PathSep => {}
            Token::Mark('*') => segments.push("*".to_owned()),
            Token::Mark('{') => {
                at += 1;
                while tokens.get(at).is_some_and(|(_, token)| *token != Token::Mark('}')) {
                    at = read_use_tree(tokens, at, &segments, out);
                    if matches!(tokens.get(at), Some((_, Token::Mark(',')))) {
                        at += 1;
                    }
                }
                return at + 1;
            }
            Token::Mark(_) => {
                push_use(out, *line, segments, alias);
                return at;
            }
        }
        at += 1;
    }
    at
}

fn push_use(out: &mut Vec<Aliased>, line: usize, segments: Vec<String>, alias: Option<String>) {
    if let Some(last) = segments.last().cloned() {
        out.push((CodePath { line, segments }, alias.unwrap_or(last)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(path: &str, text: &str) -> Vec<String> {
        Source::new(path, text).paths.iter().map(CodePath::text).collect()
    }

    #[test]
    fn use_trees_are_unfolded_and_aliases_followed() {
        let text = "use std::{fs, time::{self, Instant as Then}};\nfn f() { Then::now(); time::SystemTime::now(); }";
        let found = paths("shared/src/x.rs", text);
        assert_eq!(
            found,
            ["std::fs", "std::time", "std::time::Instant", "std::time::Instant::now", "std::time::SystemTime::now"]
        );
    }

    #[test]
    fn relative_paths_are_made_absolute() {
        assert_eq!(paths("collector/src/engine/eval.rs", "use super::super::store::X;"), ["crate::store::X"]);
        let inline = "#[cfg(test)]\nmod tests {\n use super::Y;\n}";
        assert_eq!(paths("collector/src/engine/mod.rs", inline), ["crate::engine::Y"]);
    }

    #[test]
    fn a_glob_names_what_lies_below_it() {
        let source = Source::new("shared/src/x.rs", "use std::time::*;");
        assert!(source.paths[0].names("std::time::Instant"));
        assert!(!source.paths[0].names("std::fs"));
    }

    #[test]
    fn a_longer_crate_name_is_another_crate() {
        let source = Source::new("shared/src/x.rs", "use quinn_like::X;");
        assert!(!source.paths[0].names("quinn"));
    }

    #[test]
    fn test_areas_span_their_item_and_no_more() {
        let text = "fn a() {}\n#[cfg(test)]\n#[allow(x)]\nmod tests {\n fn b() {}\n}\nfn c() {}\n#[cfg(not(test))]\nfn d() {}\n#[cfg(test)]\nmod more;\n";
        let source = Source::new("agent/src/x.rs", text);
        assert_eq!(source.test_areas, [(2, 6), (10, 11)]);
        assert!(source.is_test(5) && !source.is_test(7) && !source.is_test(9));
    }
}
