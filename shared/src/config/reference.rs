//! The commented full configuration file, made from the schema, so that what is shipped cannot drift from the code.
//! As it stands it sets nothing; with the `#` before a key taken away it sets that key to its default.

use super::schema::{Key, Kind, assert_schema};
use super::value::{default_toml, describe};

/// Comments are filled up to this column.
const COMMENT_COLUMNS: usize = 80;

/// The keys at the top first, then the tables in the order in which the schema first names them.
pub fn render_reference(schema: &'static [Key]) -> String {
    assert_schema(schema);
    let mut tables = vec![""];
    for key in schema {
        if !tables.contains(&key.table()) {
            tables.push(key.table());
        }
    }
    let mut text = String::new();
    for table in tables {
        if !table.is_empty() {
            start_block(&mut text);
            text.push_str(&format!("[{table}]\n"));
        }
        for key in schema.iter().filter(|key| key.table() == table) {
            start_block(&mut text);
            render_key(&mut text, key);
        }
    }
    text
}

fn start_block(text: &mut String) {
    if !text.is_empty() {
        text.push('\n');
    }
}

fn render_key(text: &mut String, key: &Key) {
    for paragraph in key.help.lines() {
        push_comment(text, paragraph);
    }
    if !matches!(key.kind, Kind::Text | Kind::Bool | Kind::List | Kind::Labels) {
        let kind = describe(key.kind);
        push_comment(text, &format!("{}{}.", kind[..1].to_ascii_uppercase(), &kind[1..]));
    }
    let value = match (key.kind, key.default) {
        (_, Some(default)) => default_toml(key, default),
        (Kind::List, None) => "[]".to_owned(),
        (Kind::Labels, None) => "{}".to_owned(),
        (_, None) => "\"\"".to_owned(),
    };
    text.push_str(&format!("#{} = {value}\n", key.leaf()));
}

/// A comment has a blank after its `#`; a key that waits to be used has none.
fn push_comment(text: &mut String, paragraph: &str) {
    let mut column = 0;
    for word in paragraph.split_whitespace() {
        let width = word.chars().count() + 1;
        if column == 0 || column + width > COMMENT_COLUMNS {
            if column > 0 {
                text.push('\n');
            }
            text.push('#');
            column = 1;
        }
        text.push(' ');
        text.push_str(word);
        column += width;
    }
    if column > 0 {
        text.push('\n');
    }
}
