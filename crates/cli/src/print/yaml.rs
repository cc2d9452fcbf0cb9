//! JSON values as YAML 1.2: one key or element a line. Each text that YAML could take for something else is quoted as JSON is, which YAML reads the same way.

use serde_json::Value;

use super::escaped;

/// The value as a document.
pub(super) fn text(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Object(_) | Value::Array(_) => block(&mut text, value, 0),
        scalar => text = inline(scalar) + "\n",
    }
    text
}

/// A value of lines of its own.
fn block(text: &mut String, value: &Value, depth: usize) {
    let margin = "  ".repeat(depth);
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (name, value) in members {
                text.extend([margin.as_str(), &word(name), ":"]);
                below(text, value, depth);
            }
        }
        Value::Array(elements) if !elements.is_empty() => {
            for element in elements {
                if !is_block(element) {
                    text.extend([margin.as_str(), "- ", &inline(element), "\n"]);
                    continue;
                }
                let at = text.len();
                block(text, element, depth + 1);
                // Its first line stands behind the dash.
                text.replace_range(at + margin.len()..at + margin.len() + 2, "- ");
            }
        }
        scalar => text.extend([margin.as_str(), &inline(scalar), "\n"]),
    }
}

fn below(text: &mut String, value: &Value, depth: usize) {
    if is_block(value) {
        text.push('\n');
        block(text, value, depth + 1);
    } else {
        text.extend([" ", &inline(value), "\n"]);
    }
}

fn is_block(value: &Value) -> bool {
    match value {
        Value::Object(members) => !members.is_empty(),
        Value::Array(elements) => !elements.is_empty(),
        _ => false,
    }
}

fn inline(value: &Value) -> String {
    match value {
        Value::String(text) => word(text),
        other => escaped(&other.to_string()),
    }
}

/// A text: as it is if nobody could read it as something else.
fn word(text: &str) -> String {
    const OTHERS: [&str; 10] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n", "nan"];
    let starts = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'/');
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte));
    let is_other = OTHERS.iter().any(|other| text.eq_ignore_ascii_case(other));
    if starts && plain && !is_other { text.to_owned() } else { escaped(&Value::from(text).to_string()) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_value_is_read_back_as_what_it_was() {
        let value = json!({
            "name": "web1", "no": "no", "count": 7, "none": null, "on": true, "text": "a: b\n\u{1b}[2J", "empty": [], "nothing": {},
            "list": [1, "hv-1", { "a": { "b": [["x"], []] } }, "10", ""],
        });
        assert_eq!(
            text(&value),
            "count: 7\nempty: []\nlist:\n  - 1\n  - hv-1\n  - a:\n      b:\n        - - x\n        - []\n  - \"10\"\n  - \"\"\nname: web1\n\"no\": \"no\"\nnone: null\nnothing: {}\n\"on\": true\ntext: \"a: b\\n\\u001b[2J\"\n"
        );
        assert_eq!(text(&json!("web1")), "web1\n");
        assert_eq!(text(&json!([])), "[]\n");
    }
}
