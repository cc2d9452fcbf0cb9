//! Which figures an expression of PromQL names, and by which labels. As much of the language as rules and dashboards use; what it does not know is an error.

use std::collections::BTreeSet;

/// A figure, and the labels by which it is chosen, or by which what it is in is grouped.
#[derive(Debug)]
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) labels: BTreeSet<String>,
}

/// Words between figures.
const WORDS: [&str; 8] = ["and", "or", "unless", "bool", "offset", "inf", "nan", "atan2"];
/// What a list of labels follows.
const GROUPS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];

#[derive(Debug, PartialEq)]
enum Token {
    Word(String),
    Text,
    Sign(char),
}

/// The figures of an expression.
pub(crate) fn named(expression: &str) -> Result<Vec<Named>, String> {
    let tokens = tokens(expression)?;
    let (mut figures, mut groups) = (Vec::<Named>::new(), BTreeSet::new());
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        at += 1;
        let Token::Word(word) = token else { continue };
        if GROUPS.contains(&word.as_str()) {
            if tokens.get(at) == Some(&Token::Sign('(')) {
                let end = end_of(&tokens, at, ')')?;
                groups.extend(words(&tokens[at..end]));
                at = end;
            }
            continue;
        }
        let is_function = tokens.get(at) == Some(&Token::Sign('('));
        let is_before_a_group =
            matches!(tokens.get(at), Some(Token::Word(next)) if GROUPS.contains(&next.as_str()));
        let is_aggregation =
            is_before_a_group && ["sum", "max", "min", "count", "avg"].contains(&word.as_str());
        if WORDS.contains(&word.as_str()) || is_function || is_aggregation {
            continue;
        }
        let mut labels = BTreeSet::new();
        if tokens.get(at) == Some(&Token::Sign('{')) {
            let end = end_of(&tokens, at, '}')?;
            labels.extend(words(&tokens[at..end]));
            at = end;
        }
        figures.push(Named { name: word.clone(), labels });
    }
    if let Some(first) = figures.first_mut() {
        first.labels.append(&mut groups);
    }
    Ok(figures)
}

fn end_of(tokens: &[Token], from: usize, sign: char) -> Result<usize, String> {
    let rest = tokens.get(from..).unwrap_or_default();
    let end = rest.iter().position(|token| *token == Token::Sign(sign));
    end.map(|end| from + end).ok_or_else(|| format!("no {sign}"))
}

fn words(tokens: &[Token]) -> impl Iterator<Item = String> {
    tokens.iter().filter_map(|token| if let Token::Word(word) = token { Some(word.clone()) } else { None })
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '"' => {
                while let Some(c) = rest.next() {
                    match c {
                        '\\' => drop(rest.next()),
                        '"' => break,
                        _ => {}
                    }
                }
                tokens.push(Token::Text);
            }
            // Durations: `5m`, and Grafana's `$__rate_interval`.
            '[' => while rest.next_if(|c| *c != ']').is_some() {},
            '0'..='9' => while rest.next_if(|c| c.is_ascii_alphanumeric() || *c == '.').is_some() {},
            c if c.is_ascii_alphabetic() || c == '_' || c == '$' => {
                let mut word = String::from(c);
                while let Some(c) = rest.next_if(|c| c.is_ascii_alphanumeric() || *c == '_' || *c == ':') {
                    word.push(c);
                }
                tokens.push(Token::Word(word));
            }
            '(' | ')' | '{' | '}' => tokens.push(Token::Sign(c)),
            ',' | '=' | '!' | '~' | '>' | '<' | '+' | '-' | '*' | '/' | '%' | ']' | ' ' | '\n' => {}
            other => return Err(format!("{other:?} is not understood")),
        }
    }
    Ok(tokens)
}
