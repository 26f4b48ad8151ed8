//! Turns Rust text into tokens with their line numbers; comments and the contents of literals are gone.
//! It accepts every text: what is not Rust gives tokens that mean nothing, never a panic.

/// A piece of code that the rules look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token {
    Word(String),
    PathSep,
    Mark(char),
}

/// Each token with the line it stands in.
pub(crate) type Tokens = Vec<(usize, Token)>;

pub(crate) fn tokenize(text: &str) -> Tokens {
    let mut tokens = Vec::new();
    for (index, line) in mask(text).lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let word_len = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            let (token, len) = if word_len > 0 {
                (Token::Word(rest[..word_len].to_owned()), word_len)
            } else if rest.starts_with("::") {
                (Token::PathSep, 2)
            } else {
                (Token::Mark(first), first.len_utf8())
            };
            tokens.push((index + 1, token));
            rest = rest[len..].trim_start();
        }
    }
    tokens
}

/// The index of the mark that closes the one at `open_at`.
pub(crate) fn matching(tokens: &[(usize, Token)], open_at: usize, open: char, close: char) -> Option<usize> {
    let mut depth = 0usize;
    for (index, (_, token)) in tokens.iter().enumerate().skip(open_at) {
        if *token == Token::Mark(open) {
            depth += 1;
        } else if *token == Token::Mark(close) {
            depth -= 1;
            if depth == 0 {
                return Some(index);
            }
        }
    }
    None
}

/// Blanks comments and the contents of literals; every line keeps its number.
fn mask(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut masked = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = end_of_blank(&chars, at);
        if end > at {
            masked.extend(chars[at..end].iter().map(|&c| if c == '\n' { c } else { ' ' }));
            at = end;
        } else {
            masked.push(chars[at]);
            at += 1;
        }
    }
    masked
}

/// Where the comment or literal that starts at `at` ends; `at` itself if none starts there.
fn end_of_blank(chars: &[char], at: usize) -> usize {
    let next = chars.get(at + 1).copied();
    match chars[at] {
        '/' if next == Some('/') => line_end(chars, at),
        '/' if next == Some('*') => block_comment_end(chars, at),
        '"' => quoted_end(chars, at, '"'),
        'r' if at == 0 || !is_word(chars[at - 1]) || is_literal_prefix(chars, at - 1) => raw_string_end(chars, at),
        // A quote that closes after one character, or that opens with an escape, is a literal; any other is a lifetime.
        '\'' if next == Some('\\') || chars.get(at + 2) == Some(&'\'') => quoted_end(chars, at, '\''),
        _ => at,
    }
}

fn line_end(chars: &[char], at: usize) -> usize {
    chars[at..].iter().position(|&c| c == '\n').map_or(chars.len(), |len| at + len)
}

fn block_comment_end(chars: &[char], at: usize) -> usize {
    let (mut depth, mut i) = (0, at);
    while i < chars.len() {
        match (chars[i], chars.get(i + 1)) {
            ('/', Some('*')) => {
                depth += 1;
                i += 2;
            }
            ('*', Some('/')) => {
                depth -= 1;
                i += 2;
            }
            _ => i += 1,
        }
        if depth == 0 {
            return i;
        }
    }
    chars.len()
}

fn quoted_end(chars: &[char], at: usize, quote: char) -> usize {
    let mut i = at + 1;
    while i < chars.len() {
        match chars[i] {
            '\\' => i += 2,
            c if c == quote => return i + 1,
            _ => i += 1,
        }
    }
    chars.len()
}

fn raw_string_end(chars: &[char], at: usize) -> usize {
    let hashes = chars[at + 1..].iter().take_while(|&&c| c == '#').count();
    if chars.get(at + 1 + hashes) != Some(&'"') {
        return at;
    }
    let mut i = at + 2 + hashes;
    while i < chars.len() {
        let closing = chars[i + 1..].iter().take(hashes).filter(|&&c| c == '#').count();
        if chars[i] == '"' && closing == hashes {
            return i + 1 + hashes;
        }
        i += 1;
    }
    chars.len()
}

/// The `b` of `br"..."` or the `c` of `cr"..."`, standing alone.
fn is_literal_prefix(chars: &[char], at: usize) -> bool {
    matches!(chars[at], 'b' | 'c') && (at == 0 || !is_word(chars[at - 1]))
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        let tokens = tokenize(text).into_iter();
        tokens.filter_map(|(_, token)| if let Token::Word(word) = token { Some(word) } else { None }).collect()
    }

    #[test]
    fn comments_are_no_code() {
        assert_eq!(words("// a\n/* b /* c */ d */ e //! f"), ["e"]);
    }

    #[test]
    fn literals_are_no_code() {
        let text = r##"x "a \" b" r#"c " d"# br"e" '"' y '\'' z b'f' "##;
        assert_eq!(words(text), ["x", "b", "y", "z", "b"]);
    }

    #[test]
    fn lifetimes_do_not_open_a_literal() {
        assert_eq!(words("fn f<'a, 'b>(x: &'a B)"), ["fn", "f", "a", "b", "x", "a", "B"]);
    }

    #[test]
    fn tokens_keep_their_line() {
        assert_eq!(
            tokenize("/*\n*/ \"\n\" a\n\nb"),
            [(3, Token::Word("a".to_owned())), (5, Token::Word("b".to_owned()))]
        );
    }

    #[test]
    fn unfinished_text_is_accepted() {
        for text in ["\"", "'", "r#\"", "/*", "\"\\", "'\\", "b'"] {
            tokenize(text);
        }
    }
}
