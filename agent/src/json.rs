//! The few words of JSON that commands write by hand: text in quotes, and lists.
//!
//! A serializer of their shapes would cost the binary more than these lines.

/// Writes the items with commas between them.
pub(crate) fn list(text: &mut String, items: impl Iterator<Item = String>) {
    for (number, item) in items.enumerate() {
        text.push_str(if number > 0 { "," } else { "" });
        text.push_str(&item);
    }
}

pub(crate) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_quoted_as_json_wants_it() {
        assert_eq!(quoted("a\"b\\c\n\u{1}ü"), "\"a\\\"b\\\\c\\u000a\\u0001ü\"");
    }

    #[test]
    fn a_list_has_commas_between_its_items() {
        let mut text = String::from("[");
        list(&mut text, ["1", "2", "3"].map(String::from).into_iter());
        assert_eq!(text, "[1,2,3");
    }
}
