//! A document as [`super::reader`] sees it, whether it was written in TOML or in JSON: values with
//! the place where each stands.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

/// A value and where it stands; in JSON that is not known.
pub(super) struct Tree {
    pub(super) at: Range<usize>,
    pub(super) node: Node,
}

/// A value.
pub(super) enum Node {
    Text(String),
    Integer {
        digits: String,
        radix: u32,
    },
    /// Written as it stood.
    Float(String),
    Switch(bool),
    List(Vec<Tree>),
    Table(Vec<(Key, Tree)>),
    /// TOML's dates, which nothing takes.
    Date,
    /// JSON's null, where it cannot be left out.
    Null,
}

/// The key of a value, and where it stands.
pub(super) struct Key {
    pub(super) at: Range<usize>,
    pub(super) name: String,
}

impl Node {
    /// What it is called in an error, with its article.
    pub(super) fn describe(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer { .. } => "an integer",
            Self::Float(_) => "a float",
            Self::Switch(_) => "a boolean",
            Self::List(_) => "an array",
            Self::Table(_) => "a table",
            Self::Date => "a datetime",
            Self::Null => "null",
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&(Key, Tree)> {
        self.entries().iter().find(|(name, _)| name.name == key)
    }

    /// Of a table; nothing of anything else.
    pub(super) fn entries(&self) -> &[(Key, Tree)] {
        if let Self::Table(entries) = self { entries } else { &[] }
    }
}

impl Tree {
    pub(super) fn of_toml(table: &DeTable<'_>) -> Self {
        Self { at: 0..0, node: toml_table(table) }
    }

    /// Keys that are null count as not written.
    pub(super) fn of_json(value: &serde_json::Value) -> Self {
        Self { at: 0..0, node: json_node(value) }
    }
}

fn toml_table(table: &DeTable<'_>) -> Node {
    let entry = |(key, value): (&toml::Spanned<_>, &toml::Spanned<DeValue<'_>>)| {
        let key: (Range<usize>, &toml::de::DeString<'_>) = (key.span(), key.get_ref());
        (Key { at: key.0, name: key.1.to_string() }, toml_tree(value))
    };
    Node::Table(table.iter().map(entry).collect())
}

fn toml_tree(value: &toml::Spanned<DeValue<'_>>) -> Tree {
    let node = match value.get_ref() {
        DeValue::String(text) => Node::Text(text.to_string()),
        DeValue::Integer(number) => {
            Node::Integer { digits: number.as_str().to_owned(), radix: number.radix() }
        }
        DeValue::Float(number) => Node::Float(number.to_string()),
        DeValue::Boolean(switch) => Node::Switch(*switch),
        DeValue::Datetime(_) => Node::Date,
        DeValue::Array(array) => Node::List(array.iter().map(toml_tree).collect()),
        DeValue::Table(table) => toml_table(table),
    };
    Tree { at: value.span(), node }
}

fn json_node(value: &serde_json::Value) -> Node {
    use serde_json::Value;
    match value {
        Value::Null => Node::Null,
        Value::Bool(switch) => Node::Switch(*switch),
        Value::Number(number) if number.is_f64() => Node::Float(number.to_string()),
        Value::Number(number) => Node::Integer { digits: number.to_string(), radix: 10 },
        Value::String(text) => Node::Text(text.clone()),
        Value::Array(array) => Node::List(array.iter().map(Tree::of_json).collect()),
        Value::Object(object) => {
            let written = object.iter().filter(|(_, value)| !value.is_null());
            let entry = |(name, value): (&String, &Value)| {
                (Key { at: 0..0, name: name.clone() }, Tree::of_json(value))
            };
            Node::Table(written.map(entry).collect())
        }
    }
}
