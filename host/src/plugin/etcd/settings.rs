//! Where the cluster is and who we are there, as `[plugin.NAME] config` says it.

use std::{fmt, path::PathBuf, time::Duration};

use etcd_client::{Certificate, Identity, TlsOptions};

use crate::{authority, units::Span};

/// Where etcd listens unless told otherwise.
const DEFAULT: &str = "http://127.0.0.1:2379";

/// How much history is kept unless told otherwise: as much as a router may be away and go on where it was.
const KEEP: Duration = Duration::from_secs(600);
const SHORTEST: Duration = Duration::from_secs(1);

/// Checked settings. Files are read anew for each connection, so that they may be rotated.
#[derive(Clone, PartialEq, Eq)]
pub struct EtcdSettings {
    pub(super) endpoints: Vec<String>,
    pub(super) user: Option<(String, String)>,
    ca: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
    /// For how long the history is kept; none: it is not for this client to say.
    pub(super) compact: Option<Duration>,
}

/// What is wrong with the settings.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidEtcdSettings {
    /// Nothing to connect to.
    #[error(
        "`endpoints` is missing: write one or more URIs separated by commas, such as `http://127.0.0.1:2379`"
    )]
    NoEndpoints,
    /// Not something to connect to.
    #[error("`endpoints`: `{0}` is not an endpoint: write http://HOST:PORT or https://HOST:PORT")]
    Endpoint(String),
    /// Not a time for which history can be kept.
    #[error("`compact` is `{0}`: write how much history etcd keeps, such as `10m`, `1s` at least, or `off`")]
    Compact(String),
    /// Plain text and TLS cannot be mixed.
    #[error("`endpoints` must all start with http:// or all with https://")]
    Mixed,
    /// A certificate authority must be named.
    #[error(
        "https:// endpoints need `ca`: the path of a PEM file with the authority that signed etcd's certificate"
    )]
    NoAuthority,
    /// TLS files without TLS.
    #[error("`{0}` is of use only with https:// endpoints")]
    NoTls(&'static str),
    /// Two settings that make sense only together.
    #[error("`{0}` needs `{1}`")]
    Alone(&'static str, &'static str),
}

impl EtcdSettings {
    /// Reads `endpoints` (separated by commas), `user`, `password`, `ca`, `cert` and `key` (paths of PEM files), and
    /// `compact`; any other key belongs to the plugin.
    pub fn new<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Result<Self, InvalidEtcdSettings> {
        let given = |key| get(key).map(str::trim).filter(|value| !value.is_empty());
        let pair = |one, other| match (given(one), given(other)) {
            (Some(a), Some(b)) => Ok(Some((a, b))),
            (None, None) => Ok(None),
            (Some(_), None) => Err(InvalidEtcdSettings::Alone(one, other)),
            (None, Some(_)) => Err(InvalidEtcdSettings::Alone(other, one)),
        };
        let endpoints = given("endpoints").unwrap_or(DEFAULT);
        let settings = Self {
            endpoints: endpoints.split(',').map(endpoint).collect::<Result<_, _>>()?,
            user: pair("user", "password")?.map(|(user, password)| (user.to_owned(), password.to_owned())),
            ca: given("ca").map(PathBuf::from),
            identity: pair("cert", "key")?.map(|(cert, key)| (cert.into(), key.into())),
            compact: given("compact").map_or(Ok(Some(KEEP)), compact)?,
        };
        settings.check_tls()?;
        Ok(settings)
    }

    fn check_tls(&self) -> Result<(), InvalidEtcdSettings> {
        let tls = self.endpoints.iter().filter(|endpoint| is_tls(endpoint)).count();
        if tls != 0 && tls != self.endpoints.len() {
            return Err(InvalidEtcdSettings::Mixed);
        }
        match (tls > 0, &self.ca, &self.identity) {
            (true, None, _) => Err(InvalidEtcdSettings::NoAuthority),
            (false, Some(_), _) => Err(InvalidEtcdSettings::NoTls("ca")),
            (false, _, Some(_)) => Err(InvalidEtcdSettings::NoTls("cert")),
            _ => Ok(()),
        }
    }

    /// Reads the files. An error names the file.
    pub(super) fn tls(&self) -> Result<Option<TlsOptions>, String> {
        let Some(ca) = &self.ca else { return Ok(None) };
        let read =
            |path: &PathBuf| std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
        let mut tls = TlsOptions::new().ca_certificate(Certificate::from_pem(read(ca)?));
        if let Some((cert, key)) = &self.identity {
            tls = tls.identity(Identity::from_pem(read(cert)?, read(key)?));
        }
        Ok(Some(tls))
    }
}

fn compact(text: &str) -> Result<Option<Duration>, InvalidEtcdSettings> {
    if text == "off" {
        return Ok(None);
    }
    let keep = text.parse::<Span>().ok().filter(|keep| keep.0 >= SHORTEST);
    keep.map(|keep| Some(keep.0))
        .ok_or_else(|| InvalidEtcdSettings::Compact(text.chars().take(200).collect()))
}

fn endpoint(text: &str) -> Result<String, InvalidEtcdSettings> {
    let text = text.trim();
    let invalid = || InvalidEtcdSettings::Endpoint(text.chars().take(200).collect());
    let uri: http::Uri = text.parse().map_err(|_| invalid())?;
    let scheme = matches!(uri.scheme_str(), Some("http" | "https"));
    let plain = uri.path() == "/" && uri.query().is_none();
    let authority = uri.authority().and_then(|authority| authority::split(authority.as_str()));
    if scheme && plain && authority.is_some() {
        Ok(text.trim_end_matches('/').to_owned())
    } else {
        Err(invalid())
    }
}

fn is_tls(endpoint: &str) -> bool {
    endpoint.starts_with("https:")
}

/// Without the password.
impl fmt::Debug for EtcdSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdSettings")
            .field("endpoints", &self.endpoints)
            .field("user", &self.user.as_ref().map(|(user, _)| user))
            .field("ca", &self.ca)
            .field("identity", &self.identity)
            .field("compact", &self.compact)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(of: &[(&str, &'static str)]) -> Result<EtcdSettings, InvalidEtcdSettings> {
        EtcdSettings::new(|key| of.iter().find(|(name, _)| *name == key).map(|(_, value)| *value))
    }

    #[test]
    fn reads_several_endpoints_and_credentials() {
        let read = settings(&[
            ("endpoints", " http://a:2379/, http://b:2379"),
            ("user", "mf"),
            ("password", "secret"),
        ]);
        let read = read.unwrap();
        assert_eq!(settings(&[]).unwrap().endpoints, [DEFAULT]);
        let keeps = |compact| settings(&[("compact", compact)]).unwrap().compact;
        assert_eq!((settings(&[]).unwrap().compact, keeps("1h")), (Some(KEEP), Some(KEEP * 6)));
        assert_eq!(keeps("off"), None);
        assert_eq!(read.endpoints, ["http://a:2379", "http://b:2379"]);
        assert_eq!(read.user, Some(("mf".into(), "secret".into())));
        let shown = format!("{read:?}");
        assert!(shown.contains("mf") && !shown.contains("secret"), "{shown}");
    }

    #[test]
    fn says_what_is_wrong() {
        use InvalidEtcdSettings as Invalid;
        let http = ("endpoints", "http://a:1");
        let https = ("endpoints", "https://a:1");
        let cases = [
            (vec![("endpoints", "a:2379")], Invalid::Endpoint("a:2379".into())),
            (vec![("endpoints", "http://a:1,")], Invalid::Endpoint(String::new())),
            (vec![("endpoints", "http://u:p@a:1")], Invalid::Endpoint("http://u:p@a:1".into())),
            (vec![("endpoints", "http://a:1,https://b:1")], Invalid::Mixed),
            (vec![https], Invalid::NoAuthority),
            (vec![http, ("ca", "ca.pem")], Invalid::NoTls("ca")),
            (vec![https, ("ca", "ca.pem"), ("cert", "c.pem")], Invalid::Alone("cert", "key")),
            (vec![http, ("compact", "10")], Invalid::Compact("10".into())),
            (vec![http, ("compact", "10ms")], Invalid::Compact("10ms".into())),
            (vec![http, ("password", "secret")], Invalid::Alone("password", "user")),
        ];
        for (given, expected) in cases {
            assert_eq!(settings(&given).unwrap_err(), expected, "{given:?}");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let read = settings(&[("endpoints", "https://a:1"), ("ca", "/nowhere/ca.pem")]).unwrap();
        assert!(read.tls().unwrap_err().contains("/nowhere/ca.pem"));
    }
}
