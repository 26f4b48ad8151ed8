//! The text of a condition as tokens, each with its place.
//!
//! What is no token is refused with the spelling that would be one: a text comes from people who know other languages.

use super::condition::Operator;
use super::error::{Fault, Span};
use super::literal::{self, Literal};
use crate::config::quote;
use crate::limits::RULE_TEXT_BYTES_MAX;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Token<'a> {
    Number(Literal),
    Name(&'a str),
    And,
    Or,
    Unless,
    Compare(Operator),
    Plus,
    Minus,
    Star,
    Slash,
    Open,
    Close,
    Comma,
}

pub(super) fn lex(text: &str) -> Result<Vec<(Token<'_>, Span)>, Fault> {
    if text.len() > RULE_TEXT_BYTES_MAX {
        let message = format!("{} bytes are too many for a condition; the limit is {RULE_TEXT_BYTES_MAX}", text.len());
        return Err(Fault::new(0, message));
    }
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        if first.is_ascii_whitespace() {
            at += 1;
            continue;
        }
        let (token, len) = token(text, at, first)?;
        tokens.push((token, Span { start: at, end: at + len }));
        at += len;
    }
    Ok(tokens)
}

fn token(text: &str, at: usize, first: char) -> Result<(Token<'_>, usize), Fault> {
    let rest = &text[at..];
    if first.is_ascii_digit() || first == '.' {
        let (literal, len) = literal::read(rest).map_err(|message| Fault::new(at, message))?;
        return Ok((Token::Number(literal), len));
    }
    if is_name(first) {
        let len = rest.find(|letter| !is_name(letter)).unwrap_or(rest.len());
        let token = match &rest[..len] {
            "and" => Token::And,
            "or" => Token::Or,
            "unless" => Token::Unless,
            name => Token::Name(name),
        };
        return Ok((token, len));
    }
    // A longer operator is asked for before the one that it begins with.
    let mut operators = Operator::ALL;
    operators.sort_by_key(|operator| std::cmp::Reverse(operator.as_str().len()));
    if let Some(operator) = operators.into_iter().find(|operator| rest.starts_with(operator.as_str())) {
        return Ok((Token::Compare(operator), operator.as_str().len()));
    }
    let token = match first {
        '+' => Token::Plus,
        '-' => Token::Minus,
        '*' => Token::Star,
        '/' => Token::Slash,
        '(' => Token::Open,
        ')' => Token::Close,
        ',' => Token::Comma,
        _ => return Err(Fault::new(at, strange(first))),
    };
    Ok((token, 1))
}

const fn is_name(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

fn strange(letter: char) -> String {
    let advice = match letter {
        '=' => "one = compares nothing; write ==",
        '!' => "! means nothing by itself; write != or unless",
        '&' => "write and",
        '|' => "write or",
        '%' => "a percentage is written without a space, like 90%",
        '"' | '\'' => "names and words stand without quotes, like node_state == down",
        '{' | '}' => "labels stand in where, like where = { role = \"db\" }",
        '[' | ']' => "a window stands in its function, like avg(host_load1, 5m)",
        '~' | '^' | '$' | '?' | '\\' => "there are no regular expressions; subject and where know * for anything",
        _ => return format!("{} means nothing here", quote(letter.encode_utf8(&mut [0; 4]))),
    };
    advice.to_owned()
}
