//! What a service needs: another service, of any live version or of one.

use serde_json::Value;

use crate::table::ServiceId;

/// A service that another needs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Requirement {
    /// Without a version: whatever is live of that name.
    pub service: ServiceId,
    /// How much of it is told.
    pub scope: Scope,
}

/// How many servers of a requirement are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Scope {
    /// One, and another when that goes.
    #[default]
    One,
    /// All of them, at every change.
    All,
}

impl Scope {
    /// `"all"` or `"one"`.
    pub fn read(json: &Value) -> Result<Self, String> {
        match json.as_str() {
            Some("all") => Ok(Self::All),
            Some("one") => Ok(Self::One),
            _ => Err(format!("`servers` is {}: write \"all\" or \"one\"", shown(json))),
        }
    }
}

impl Requirement {
    /// `"explosion-service"`, `"explosion-service@2"`, or an object with `name`, `version` and
    /// `servers`.
    pub fn read(json: &Value, scope: Scope) -> Result<Self, String> {
        match json {
            Value::String(text) => Ok(Self { service: service(text, None)?, scope }),
            Value::Object(object) => {
                let name = object.get("name").and_then(Value::as_str);
                let name = name.ok_or("a requirement needs a `name`, such as \"explosion-service\"")?;
                let scope = object.get("servers").map_or(Ok(scope), Scope::read)?;
                Ok(Self { service: service(name, object.get("version"))?, scope })
            }
            other => {
                Err(format!("{} is not a requirement: write \"NAME\" or \"NAME@VERSION\"", shown(other)))
            }
        }
    }
}

/// A service by its name, which may hold the version, and its version, which may be a number.
pub(super) fn service(name: &str, version: Option<&Value>) -> Result<ServiceId, String> {
    let version = match version {
        None | Some(Value::Null) => None,
        Some(Value::String(version)) => Some(version.clone()),
        Some(Value::Number(version)) => Some(version.to_string()),
        Some(other) => return Err(format!("`version` is {}: write a text such as \"2\"", shown(other))),
    };
    let Some(version) = version else { return name.parse().map_err(|error| format!("{error}")) };
    match name.split_once('@') {
        Some((_, written)) if written != version => {
            Err(format!("`{}` and `version` \"{}\" disagree", cut(name), cut(&version)))
        }
        Some(_) => name.parse().map_err(|error| format!("{error}")),
        None => format!("{name}@{version}").parse().map_err(|error| format!("{error}")),
    }
}

/// A value, short enough to be said back.
pub(super) fn shown(json: &Value) -> String {
    match json {
        Value::Object(_) => "an object".to_owned(),
        Value::Array(_) => "an array".to_owned(),
        Value::String(text) => format!("`{}`", cut(text)),
        other => cut(&other.to_string()),
    }
}

pub(super) fn cut(text: &str) -> String {
    text.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn requirements_are_texts_or_objects() {
        for (json, expect) in [
            (json!("a"), Ok(("a", Scope::One))),
            (json!("a@2"), Ok(("a@2", Scope::One))),
            (json!({"name": "a", "version": 2}), Ok(("a@2", Scope::One))),
            (json!({"name": "a@2", "version": "2", "servers": "all"}), Ok(("a@2", Scope::All))),
            (json!({"name": "a@2", "version": "3"}), Err("disagree")),
            (json!({"name": "a", "servers": 3}), Err("`servers` is 3")),
            (json!({"nam": "a"}), Err("needs a `name`")),
            (json!("a b"), Err("is not a service")),
            (json!(7), Err("7 is not a requirement")),
        ] {
            let read = Requirement::read(&json, Scope::One);
            match expect {
                Ok((service, scope)) => {
                    assert_eq!(read, Ok(Requirement { service: service.parse().unwrap(), scope }), "{json}");
                }
                Err(part) => {
                    assert!(read.as_ref().is_err_and(|error| error.contains(part)), "{json}: {read:?}")
                }
            }
        }
    }
}
