//! `[[access]]`: a token and what it allows.

use crate::{
    auth::{Action, Pattern, Rule},
    config::reader::{Section, Value},
};

pub(super) fn one(section: Section<'_>) -> Option<Rule> {
    const TOKEN: &str = "token_sha256 = \"…\" (`message-flow token` prints a token and its hash)";
    const ACTIONS: &str = "actions = [\"read\"]";
    let label = section.get("label", Value::word);
    let token = section.need("token_sha256", TOKEN, Value::parse);
    let actions = section.need("actions", ACTIONS, actions);
    let names =
        section.get("names", |value| value.list(Value::parse)).unwrap_or_else(|| vec![Pattern::any()]);
    let hosts = section.get("hosts", |value| value.list(Value::parse));
    section.end();
    let token: crate::auth::TokenHash = token?;
    let label = label.unwrap_or_else(|| token.to_string().chars().take(8).collect());
    Some(Rule { label, token, actions: actions?, names, hosts })
}

fn actions(value: &Value<'_>) -> Option<Vec<Action>> {
    value.list(|one| one.choice(&Action::WORDS))
}
