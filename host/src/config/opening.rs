//! What a configuration opens that another kept closed. A file that was cut off, or written without a
//! part, must not do that by itself: what is absent from it may not have been meant.
//!
//! Only what is *absent* counts, and what lifts a restriction as a whole. Another rule, route or
//! service that the file names is what it says.

use super::{ClientIdSource, Config};
use crate::auth::{Pattern, Rule};

impl Config {
    /// What this configuration opens that `running` keeps closed, each in words.
    pub(super) fn opens(&self, running: &Self) -> Vec<String> {
        let mut opened = Vec::new();
        let mut note = |opens: bool, text: &str| {
            if opens {
                opened.push(text.to_owned());
            }
        };
        let gone = |there: bool, is_now: bool| there && !is_now;
        note(
            gone(!running.access.is_open(), !self.access.is_open()),
            "no [[access]] section is left: everybody who reaches the API may use it",
        );
        note(self.api.open && !running.api.open, "api.open = true: everybody who reaches the API may use it");
        note(
            gone(running.api.tls.is_some(), self.api.tls.is_some()),
            "api.tls is gone: the API would be plain HTTP",
        );
        note(
            gone(running.proxy.tls.is_some(), self.proxy.tls.is_some()),
            "proxy.tls is gone: the proxy would be plain HTTP",
        );
        let (was, is) = (running.proxy.token.as_ref(), self.proxy.token.as_ref());
        note(gone(was.is_some(), is.is_some()), "[proxy.token] is gone: no token is looked at any more");
        if let (Some(was), Some(is)) = (was, is) {
            note(
                gone(was.required, is.required),
                "proxy.token.required is gone: messages without a token pass",
            );
            note(
                gone(!was.issuer.is_empty(), !is.issuer.is_empty()),
                "proxy.token.issuer is gone: any issuer is believed",
            );
        }
        note(
            gone(asks_tokens(running), asks_tokens(self)),
            "proxy.client_id names no `token:` any more: clients say themselves who they are",
        );
        note(
            gone(!running.routes.is_empty(), !self.routes.is_empty()),
            "no [[route]] section is left: the path names any service",
        );
        note(
            gone(!running.services.is_empty(), !self.services.is_empty()),
            "no [service.NAME] section is left",
        );
        opened.extend(widened(running, self));
        opened.extend(unguarded(running, self));
        opened
    }

    /// What a valid configuration leaves open, for whoever checks it: the same, read by itself.
    pub fn warnings(&self) -> Vec<String> {
        let (api, proxy) = (&self.api, &self.proxy);
        let public = |address: std::net::SocketAddr| !address.ip().to_canonical().is_loopback();
        let mut warnings = Vec::new();
        if self.access.is_open() {
            warnings.push(format!(
                "there is no [[access]] section: everybody who reaches {} may use the API",
                api.listen
            ));
        }
        if api.tls.is_none() && public(api.listen) {
            warnings.push(format!("api.tls is not set: tokens go to {} as plain text", api.listen));
        }
        if proxy.tls.is_none() && public(proxy.listen) {
            warnings.push(format!("proxy.tls is not set: {} is plain HTTP", proxy.listen));
        }
        if self.services.is_empty() {
            warnings.push("there is no [service.NAME] section: every service comes from the API".to_owned());
        }
        warnings
    }
}

fn asks_tokens(config: &Config) -> bool {
    config.proxy.client_id.iter().any(|source| matches!(source, ClientIdSource::Token(_)))
}

/// Tokens whose rules lost what bounds them: a rule without `names` holds for all, one without `hosts`
/// registers servers anywhere.
fn widened(running: &Config, new: &Config) -> Vec<String> {
    let mut widened = Vec::new();
    for rule in new.access.rules() {
        let was: Vec<&Rule> = running.access.rules().iter().filter(|was| was.token == rule.token).collect();
        let mut lost = |key: &str, is_unbounded: fn(&Rule) -> bool| {
            if !was.is_empty() && is_unbounded(rule) && !was.iter().copied().any(is_unbounded) {
                let label = &rule.label;
                widened.push(format!(
                    "the [[access]] rule of `{label}` has no `{key}` any more: it is unbounded"
                ));
            }
        };
        lost("names", |rule| rule.names.contains(&Pattern::any()));
        lost("hosts", |rule| rule.hosts.is_none());
    }
    widened
}

/// What keeps messages from services and is gone: filters, and that a service is internal.
fn unguarded(running: &Config, new: &Config) -> Vec<String> {
    let gone = |was: &[String], is: &[String], key: &str| -> Option<String> {
        let gone: Vec<&str> = was.iter().filter(|name| !is.contains(name)).map(String::as_str).collect();
        (!gone.is_empty()).then(|| format!("{key}: messages pass no filter `{}` any more", gone.join("`, `")))
    };
    let mut found: Vec<String> =
        gone(&running.proxy.filters, &new.proxy.filters, "proxy.filters").into_iter().collect();
    for (id, was) in &running.services {
        if let Some(is) = new.services.get(id) {
            let key = format!("service.{id}.filters");
            if is.record.public && !was.record.public {
                found.push(format!("service.{id}.public = false is gone: it can be reached from outside"));
            }
            let is: Vec<String> = is.record.filters.iter().chain(&new.proxy.filters).cloned().collect();
            found.extend(gone(&was.record.filters, &is, &key));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Overrides;

    fn parse(text: &str) -> Config {
        Config::parse(text, Path::new("a.toml"), &Overrides::default())
            .unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn what_is_gone_opens() {
        let hash = "0".repeat(64);
        let rule = format!("[[access]]\ntoken_sha256 = '{hash}'\nactions = ['read']\n");
        let named = format!("{rule}names = ['chat']\n");
        let service = "[service.chat]\nservers = ['http://127.0.0.1:1']\n";
        let token = "[proxy]\nclient_id = ['token:sub']\n[proxy.token]\nsecret_file = 's'\n";
        for (running, new, opens) in [
            (rule.as_str(), "", "no [[access]]"),
            ("", "[api]\nopen = true\n", "api.open"),
            ("[api]\ntls = { cert = 'a', key = 'b' }\n", "", "api.tls"),
            ("[proxy]\ntls = { cert = 'a', key = 'b' }\n", "", "proxy.tls"),
            (token, "", "[proxy.token] is gone"),
            (
                &format!("{token}required = true\n"),
                "[proxy.token]\nsecret_file = 's'\nrequired = true\n",
                "client_id",
            ),
            (&format!("{token}required = true\n"), token, "required"),
            (&format!("{token}issuer = 'a'\n"), token, "issuer"),
            ("[[route]]\nservice = 'chat'\n", "", "no [[route]]"),
            (service, "", "no [service.NAME]"),
            (&named, &rule, "names"),
            (&format!("{rule}hosts = ['10.0.0.0/8']\n"), &rule, "hosts"),
            ("[proxy]\nfilters = ['a', 'b']\n", "[proxy]\nfilters = ['a']\n", "`b`"),
            (&format!("{service}filters = ['auth']\n"), service, "service.chat.filters"),
            (&format!("{service}public = false\n"), service, "service.chat.public"),
        ] {
            let opened = parse(new).opens(&parse(running));
            assert!(opened.iter().any(|text| text.contains(opens)), "{running}\n-> {new}\n{opened:?}");
            assert!(parse(running).opens(&parse(new)).is_empty(), "{new}\n-> {running}");
        }
    }

    #[test]
    fn what_is_said_is_meant() {
        let rule =
            |digit: &str| format!("[[access]]\ntoken_sha256 = '{}'\nactions = ['read']\n", digit.repeat(64));
        let service = |name: &str| format!("[service.{name}]\nservers = ['http://127.0.0.1:1']\n");
        for (running, new) in [
            (String::new(), rule("0")),
            (rule("0") + &rule("1"), rule("2")),
            (service("a") + &service("b"), service("a")),
            (service("a"), service("b")),
            ("[proxy]\nfilters = ['a']\n".into(), "[proxy]\nfilters = ['b', 'a']\n".into()),
            (service("a") + "filters = ['x']\n", "[proxy]\nfilters = ['x']\n".to_owned() + &service("a")),
        ] {
            assert_eq!(parse(&new).opens(&parse(&running)), Vec::<String>::new(), "{running}\n-> {new}");
        }
    }

    #[test]
    fn a_check_says_what_is_open() {
        let warnings = parse("[api]\nlisten = '0.0.0.0:1'\nopen = true\n").warnings().join("\n");
        for part in ["[[access]]", "0.0.0.0:1", "api.tls", "[service.NAME]"] {
            assert!(warnings.contains(part), "{part}: {warnings}");
        }
        assert!(!warnings.contains("proxy.tls"), "{warnings}");
    }
}
