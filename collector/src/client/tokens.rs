//! Makes, lists and deletes tokens: the same for `dunlin token` and `dunlin-collector token`.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde_json::json;

use super::table::{Table, labels};
use super::when::When;
use super::{Client, ClientError, escaped};
use crate::shape::{Token, TokenCreated, TokenRequest};

/// More than anybody keeps.
const LISTED_MAX: usize = 10_000;

/// Asks for one.
pub fn create(client: &Client, request: &TokenRequest) -> Result<TokenCreated, ClientError> {
    let body = serde_json::to_value(request).unwrap_or_default();
    client.ask("POST", "/api/v1/tokens", Some(&body), std::time::Duration::from_secs(30))
}

pub fn delete(client: &Client, id: &str) -> Result<(), ClientError> {
    client.order("DELETE", &format!("/api/v1/tokens/{}", escaped(id)), None)
}

/// The token alone, for a program; what it is good for, for a person.
pub fn show_created(
    created: &TokenCreated,
    request: &TokenRequest,
    when: &When,
    (out, said): (&mut dyn Write, &mut dyn Write),
) -> io::Result<()> {
    writeln!(out, "{}", created.token)?;
    let until = match created.expires {
        Some(expires) => format!("until {} ({})", when.local(expires), when.zone()),
        None => String::from("for ever"),
    };
    let limits = if request.labels.is_empty() { String::new() } else { format!(" {}", labels(&request.labels)) };
    let what = if request.role == "join" {
        let count = request.uses.map_or(String::from("any number of nodes"), |uses| format!("{uses} nodes"));
        let bear = if limits.is_empty() { String::new() } else { format!("; they will bear{limits}") };
        let wait = if request.needs_approval { "; each waits for `dunlin approve`" } else { "" };
        format!("lets {count} join{bear}{wait}")
    } else {
        let within = if limits.is_empty() { String::new() } else { format!(", limited to{limits}") };
        format!("has the role {}{within}", created.role)
    };
    writeln!(said, "Token {} {what}. It is good {until}.", created.id)?;
    writeln!(said, "It is shown this once. Take it back with: dunlin token delete {}", created.id)
}

/// A table, or JSON for programs.
pub fn list(client: &Client, as_json: bool, when: &When, out: &mut dyn Write) -> Result<io::Result<()>, ClientError> {
    let items = client.all("/api/v1/tokens", LISTED_MAX)?;
    if as_json {
        return Ok(writeln!(out, "{}", json!({ "items": items, "next": null })));
    }
    let tokens: Vec<Token> = items.into_iter().filter_map(|item| serde_json::from_value(item).ok()).collect();
    let mut table =
        Table::new(&["ID", "ROLE", "NAME", "AGE", "EXPIRES", "USED", "LEFT", "LAST USED", "LABELS", "NOTES"])
            .right(&[5, 6]);
    for token in tokens {
        let expires = match token.expires {
            None => String::from("never"),
            Some(at) if at.0 <= when.now => String::from("is over"),
            Some(at) => when.ago(at),
        };
        let mut notes = Vec::new();
        notes.extend(token.needs_approval.then(|| String::from("approve")));
        notes.extend(token.ephemeral.then(|| String::from("ephemeral")));
        notes.extend(token.per_hour.map(|most| format!("{most} an hour")));
        let is_join = token.role == "join";
        table.row([
            token.id,
            token.role,
            token.name,
            when.ago(token.created),
            expires,
            if is_join { token.used.to_string() } else { String::new() },
            if is_join { token.uses_left.map_or(String::from("any"), |left| left.to_string()) } else { String::new() },
            token.last_used.map_or(String::from("never"), |at| format!("{} ago", when.ago(at))),
            labels(&token.labels),
            notes.join(", "),
        ]);
    }
    Ok(table.print(out))
}

/// `KEY=VALUE` words; the first that is none is given back.
pub fn parse_labels(words: &[String]) -> Result<BTreeMap<String, String>, String> {
    let pair = |word: &String| match word.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{word:?} is no label; write KEY=VALUE")),
    };
    words.iter().map(pair).collect()
}
