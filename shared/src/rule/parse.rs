//! Tokens as a tree, by precedence alone: what its names mean, and whether it is a test or a number, is checked later.
//!
//! From low to high: `or`; `and` and `unless`, from left to right; one comparison; `+` and `-`; `*` and `/`; a sign.
//! No text makes a tree of more levels than `RULE_DEPTH_MAX`, so that whatever walks one may recurse.

use super::condition::Operator;
use super::error::{Fault, Span};
use super::lex::{Token, lex};
use super::literal::{self, Literal};
use crate::config::quote;
use crate::limits::RULE_DEPTH_MAX;

#[derive(Clone, Debug)]
pub(super) struct Node<'a> {
    pub(super) form: Form<'a>,
    pub(super) span: Span,
    levels: usize,
}

#[derive(Clone, Debug)]
pub(super) enum Form<'a> {
    Number(Literal),
    Name(&'a str),
    Call { name: &'a str, arguments: Vec<Node<'a>> },
    Negated(Box<Node<'a>>),
    Pair { by: By, left: Box<Node<'a>>, right: Box<Node<'a>> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Or,
    And,
    Unless,
    Compare(Operator),
    Add,
    Subtract,
    Multiply,
    Divide,
}

/// A condition, whole.
pub(super) fn parse(text: &str) -> Result<Node<'_>, Fault> {
    let mut parser = Parser::new(text)?;
    let node = parser.expression(Level::Or, 0)?;
    parser.end()?;
    Ok(node)
}

/// An operator and what stands behind it: a condition without its left side. `None` for a text that begins otherwise.
pub(super) fn parse_half(text: &str) -> Result<Option<(Operator, Node<'_>)>, Fault> {
    let mut parser = Parser::new(text)?;
    let Some((Token::Compare(operator), _)) = parser.tokens.first().copied() else { return Ok(None) };
    parser.next += 1;
    let node = parser.expression(Level::Sum, 0)?;
    parser.end()?;
    Ok(Some((operator, node)))
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<(Token<'a>, Span)>,
    next: usize,
}

/// How tightly an operator binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Or,
    And,
    Compare,
    Sum,
    Product,
    Operand,
}

impl Level {
    const fn above(self) -> Self {
        match self {
            Self::Or => Self::And,
            Self::And => Self::Compare,
            Self::Compare => Self::Sum,
            Self::Sum => Self::Product,
            Self::Product | Self::Operand => Self::Operand,
        }
    }
}

impl By {
    const fn level(self) -> Level {
        match self {
            Self::Or => Level::Or,
            Self::And | Self::Unless => Level::And,
            Self::Compare(_) => Level::Compare,
            Self::Add | Self::Subtract => Level::Sum,
            Self::Multiply | Self::Divide => Level::Product,
        }
    }

    const fn of(token: Token<'_>) -> Option<Self> {
        Some(match token {
            Token::Or => Self::Or,
            Token::And => Self::And,
            Token::Unless => Self::Unless,
            Token::Compare(operator) => Self::Compare(operator),
            Token::Plus => Self::Add,
            Token::Minus => Self::Subtract,
            Token::Star => Self::Multiply,
            Token::Slash => Self::Divide,
            _ => return None,
        })
    }
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Result<Self, Fault> {
        Ok(Self { text, tokens: lex(text)?, next: 0 })
    }

    fn peek(&self) -> Option<(Token<'a>, Span)> {
        self.tokens.get(self.next).copied()
    }

    /// `depth` counts the parentheses, calls and signs around it: one of those takes as many calls as there are levels.
    fn expression(&mut self, lowest: Level, depth: usize) -> Result<Node<'a>, Fault> {
        let mut left = self.operand(depth)?;
        let mut is_compared = false;
        while let Some((token, at)) = self.peek() {
            let Some(by) = By::of(token).filter(|by| by.level() >= lowest) else { break };
            if matches!(by, By::Compare(_)) && is_compared {
                let advice = "comparisons stand one by one; write a < b and b < c";
                return Err(Fault::new(at.start, advice));
            }
            self.next += 1;
            let right = self.expression(by.level().above(), depth)?;
            is_compared = matches!(by, By::Compare(_));
            left = pair(by, at, left, right)?;
        }
        Ok(left)
    }

    fn operand(&mut self, depth: usize) -> Result<Node<'a>, Fault> {
        let Some((token, span)) = self.peek() else {
            return Err(Fault::new(self.text.len(), "the text ends where a metric or a number should stand"));
        };
        if depth > RULE_DEPTH_MAX {
            return Err(Fault::new(span.start, too_deep()));
        }
        self.next += 1;
        match token {
            Token::Number(literal) => Ok(Node { form: Form::Number(literal), span, levels: 1 }),
            Token::Name(name) if self.takes(Token::Open) => self.call(name, span, depth),
            Token::Name(name) => Ok(Node { form: Form::Name(name), span, levels: 1 }),
            Token::Minus => {
                let node = self.operand(depth + 1)?;
                let (span, levels) = (span.to(node.span), node.levels + 1);
                Ok(Node { form: Form::Negated(Box::new(node)), span, levels })
            }
            Token::Open => {
                let node = self.expression(Level::Or, depth + 1)?;
                let end = self.closed(span)?;
                Ok(Node { span: span.to(end), ..node })
            }
            _ => {
                let found = quote(span.of(self.text));
                Err(Fault::new(span.start, format!("{found} stands where a metric or a number should")))
            }
        }
    }

    /// Behind its opening parenthesis.
    fn call(&mut self, name: &'a str, span: Span, depth: usize) -> Result<Node<'a>, Fault> {
        let open = span;
        let mut arguments = Vec::new();
        if self.peek().map(|(token, _)| token) != Some(Token::Close) {
            arguments.push(self.expression(Level::Or, depth + 1)?);
            while self.takes(Token::Comma) {
                arguments.push(self.expression(Level::Or, depth + 1)?);
            }
        }
        let span = span.to(self.closed(open)?);
        let levels = 1 + arguments.iter().map(|argument| argument.levels).max().unwrap_or(0);
        Ok(Node { form: Form::Call { name, arguments }, span, levels })
    }

    fn closed(&mut self, open: Span) -> Result<Span, Fault> {
        match self.peek() {
            Some((Token::Close, span)) => {
                self.next += 1;
                Ok(span)
            }
            Some(_) => Err(self.unexpected("a )")),
            None => Err(Fault::new(open.start, "what opens here has no ) behind it")),
        }
    }

    fn end(&self) -> Result<(), Fault> {
        if self.peek().is_none() { Ok(()) } else { Err(self.unexpected("and, or, unless or the end of the text")) }
    }

    fn takes(&mut self, wanted: Token<'_>) -> bool {
        let is_there = self.peek().is_some_and(|(token, _)| token == wanted);
        self.next += usize::from(is_there);
        is_there
    }

    /// There is a next token, and it is none that may stand here.
    fn unexpected(&self, wanted: &str) -> Fault {
        let Some((token, span)) = self.peek() else {
            return Fault::new(self.text.len(), format!("the text ends where {wanted} should stand"));
        };
        let before = self.next.checked_sub(1).and_then(|before| self.tokens.get(before));
        if let (Token::Name(name), Some((Token::Number(_), number))) = (token, before)
            && literal::is_unit(name)
        {
            let number = number.of(self.text);
            return Fault::new(span.start, format!("a unit stands at its number; write {number}{name}"));
        }
        if let Some((Token::Name("not"), not)) = before {
            return Fault::new(not.start, NO_NOT);
        }
        Fault::new(span.start, format!("{} stands where {wanted} should", quote(span.of(self.text))))
    }
}

pub(super) const NO_NOT: &str = "there is no not; turn the comparison round, or write unless";

fn pair<'a>(by: By, at: Span, left: Node<'a>, right: Node<'a>) -> Result<Node<'a>, Fault> {
    let levels = 1 + left.levels.max(right.levels);
    if levels > RULE_DEPTH_MAX {
        return Err(Fault::new(at.start, too_deep()));
    }
    let span = left.span.to(right.span);
    Ok(Node { form: Form::Pair { by, left: Box::new(left), right: Box::new(right) }, span, levels })
}

fn too_deep() -> String {
    format!(
        "more than {RULE_DEPTH_MAX} parts within each other, or joined to each other; make several rules of this one"
    )
}
