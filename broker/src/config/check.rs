//! What is wrong with a value, and the shapes that several keys share.

use std::fmt::Display;
use std::net::IpAddr;
use std::ops::RangeInclusive;

/// Everything that a validation found: all of it is shown at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(Vec<String>);

impl Problems {
    /// Every problem, one a line; empty if there is none.
    #[must_use]
    pub fn text(&self) -> String {
        self.0.join("\n")
    }

    /// `key` has `value`, and only what `allowed` says is taken.
    pub fn add(&mut self, key: &str, value: impl Display, allowed: impl Display) {
        self.0.push(format!("{key} = {value}: {allowed}"));
    }

    /// `key` has to be set.
    pub fn missing(&mut self, key: &str, allowed: impl Display) {
        self.0.push(format!("{key} is not set: {allowed}"));
    }

    pub fn range<T: PartialOrd + Display + Copy>(&mut self, key: &str, value: T, allowed: RangeInclusive<T>) {
        if !allowed.contains(&value) {
            self.add(key, value, format_args!("it has to be {} to {}", allowed.start(), allowed.end()));
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[must_use]
    pub fn messages(&self) -> &[String] {
        &self.0
    }
}

/// A host (a name, an IPv4 address, an IPv6 address in brackets) and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    pub host: String,
    pub port: u16,
}

impl HostPort {
    /// Splits `host:port`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        // One address has one spelling: no sign, no blanks, no leading zeros.
        let port = port.parse::<u16>().ok().filter(|number| number.to_string() == port)?;
        let plausible = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').is_some_and(|ip| ip.parse::<std::net::Ipv6Addr>().is_ok()),
            None => is_host_name(host),
        };
        plausible.then(|| Self { host: host.to_owned(), port })
    }

    /// Whether the host stands for all addresses of the machine (`0.0.0.0`, `[::]`): good to
    /// listen on, useless to connect to.
    #[must_use]
    pub fn is_unspecified(&self) -> bool {
        let host = self.host.trim_matches(['[', ']']);
        host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified())
    }
}

fn is_host_name(host: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    !host.is_empty() && host.len() <= 253 && host.bytes().all(allowed)
}

/// Checks the pair of an address to listen on and the one that others are told, which is
/// filled in from the first where that is possible.
pub fn check_addresses(problems: &mut Problems, section: &str, bind: &str, advertised: &mut String) {
    let Some(bound) = HostPort::parse(bind) else {
        let allowed = "it has to be host:port, as 0.0.0.0:7400 or [::1]:7400";
        return problems.add(&format!("{section}.bind"), quoted(bind), allowed);
    };
    let key = format!("{section}.advertised");
    if advertised.is_empty() {
        if bound.is_unspecified() {
            let allowed = format_args!(
                "set it to the host:port under which others reach this broker, \
                 because {section}.bind = {bind:?} names no single address"
            );
            return problems.missing(&key, allowed);
        }
        bind.clone_into(advertised);
        return;
    }
    match HostPort::parse(advertised) {
        Some(told) if !told.is_unspecified() => {}
        Some(_) => problems.add(&key, quoted(advertised), "nobody can connect to this address; name the host"),
        None => problems.add(&key, quoted(advertised), "it has to be host:port, as broker1.example.org:7400"),
    }
}

/// Checks an address to listen on that nobody is told of.
pub fn check_bind(problems: &mut Problems, key: &str, bind: &str) {
    if HostPort::parse(bind).is_none() {
        problems.add(key, quoted(bind), "it has to be host:port, as 0.0.0.0:7480 or [::1]:7480");
    }
}

/// Checks a ZooKeeper connection string: `host:port[,host:port…][/chroot]`.
pub fn check_connection_string(problems: &mut Problems, key: &str, text: &str) {
    let allowed = "it has to be host:port,host:port,…/path, as zk1:2181,zk2:2181,zk3:2181/baton";
    if text.is_empty() {
        return problems.missing(key, allowed);
    }
    let (hosts, chroot) = match text.find('/') {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let servers_good = hosts.split(',').all(|server| HostPort::parse(server).is_some_and(|s| s.port != 0));
    let is_name = |name: &str| !matches!(name, "" | "." | ".." | "zookeeper") && !name.contains(char::is_control);
    let chroot_good = chroot.is_empty() || chroot.split('/').skip(1).all(is_name);
    if !servers_good || !chroot_good {
        problems.add(key, quoted(text), allowed);
    }
}

/// A text as it would stand in the file.
#[must_use]
pub fn quoted(text: &str) -> String {
    format!("{text:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_one_spelling() {
        for good in ["localhost:1", "10.0.0.1:65535", "[::1]:7400", "broker-1.x_y.org:0"] {
            assert!(HostPort::parse(good).is_some(), "{good}");
        }
        for bad in
            ["", "7400", ":7400", "h:", "h:65536", "h:+1", "h:01", "::1:7400", "[::g]:1", "[::1:7", "a b:1", "h:1/x"]
        {
            assert!(HostPort::parse(bad).is_none(), "{bad}");
        }
    }

    fn connection(text: &str) -> Vec<String> {
        let mut problems = Problems::default();
        check_connection_string(&mut problems, "registry.connect", text);
        problems.0
    }

    #[test]
    fn connection_strings() {
        for good in ["zk:2181", "zk1:2181,zk2:2181/baton", "10.0.0.1:2181/a/b"] {
            assert_eq!(connection(good), Vec::<String>::new());
        }
        for bad in ["", "zk", "zk:0", "zk:2181,", "zk:2181/", "zk:2181//a", "zk:2181/a/", "zk:2181/a/..", "/baton"] {
            let found = connection(bad);
            assert_eq!(found.len(), 1, "{bad}");
            assert!(found[0].starts_with("registry.connect"), "{found:?}");
            assert!(found[0].contains("zk1:2181"), "{found:?}");
        }
    }
}
