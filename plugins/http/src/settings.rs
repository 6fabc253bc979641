//! What the operator configures: `[plugin.http] config`.

/// Checked settings; times in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// `uri`: who is asked; `http://` or `https://`. Needs the grant `http:HOST` or `http:HOST:PORT`.
    pub(crate) uri: Uri,
    /// `timeout`, `1s` unless set: how long an answer is waited for. `[plugin.http] deadline` (3s) ends
    /// the call in any case.
    pub(crate) timeout: u64,
    /// `ttl`, `5s` unless set: how long an answer is remembered; `0s`: not at all.
    pub(crate) ttl: u64,
    /// `stale`, `0s` unless set: how long after that it is used again if the server does not answer.
    pub(crate) stale: u64,
    /// `entries`, 10000 unless set: how many answers are remembered.
    pub(crate) entries: u64,
    /// `headers`, separated by commas: which headers of the request the server sees. Answers are
    /// remembered for each value of them.
    pub(crate) headers: Vec<String>,
}

/// A URI in the parts that `wasi:http` takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Uri {
    pub(crate) tls: bool,
    pub(crate) authority: String,
    pub(crate) path: String,
}

impl Settings {
    /// Reads them. The error names the key and says what to write.
    pub(crate) fn read(get: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let uri = get("uri").ok_or("config.uri is missing: write the URI of the server to ask")?;
        let span = |key: &str, default: u64| match get(key) {
            Some(text) => millis(&text).ok_or_else(|| {
                format!("config.{key}: `{text}` is not a duration: write `250ms`, `5s` or `1m`")
            }),
            None => Ok(default),
        };
        let entries = get("entries").map(|text| {
            let number = text.parse().ok().filter(|number| (1..=1_000_000).contains(number));
            number.ok_or_else(|| format!("config.entries: `{text}` is out of bounds: write 1 to 1000000"))
        });
        let headers = get("headers").unwrap_or_default();
        let headers = headers.split(',').map(|name| name.trim().to_ascii_lowercase());
        Ok(Self {
            uri: Uri::parse(&uri).ok_or_else(|| {
                format!("config.uri: `{uri}` is not a URI: write http://HOST[:PORT]/PATH or https://…")
            })?,
            timeout: span("timeout", 1000)?.max(1),
            ttl: span("ttl", 5000)?,
            stale: span("stale", 0)?,
            entries: entries.transpose()?.unwrap_or(10_000),
            headers: headers.filter(|name| !name.is_empty()).collect(),
        })
    }
}

impl Uri {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let tls = match scheme {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let valid = is_authority(authority) && !text.contains(['#', ' ']);
        let slash = if path.starts_with('/') { "" } else { "/" };
        valid.then(|| Self { tls, authority: authority.to_owned(), path: format!("{slash}{path}") })
    }
}

/// `HOST` or `HOST:PORT`, with a port that is one.
fn is_authority(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let is_port = |port: &str| {
        port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
    };
    !host.is_empty()
        && !host.contains('@')
        && (bracketed || !host.contains([':', '[', ']']))
        && port.is_none_or(is_port)
}

impl std::fmt::Display for Uri {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        // Without the query: it may hold a secret.
        let path = self.path.split('?').next().unwrap_or_default();
        write!(f, "{scheme}://{}{path}", self.authority)
    }
}

fn millis(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}
