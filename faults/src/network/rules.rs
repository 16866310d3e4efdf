//! Packet filters: what gets lost, on which way.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Context;

use super::link::Detour;
use super::{Host, feed};

/// Ports that the harness itself asks: never disturbed.
pub const WATCHED: &str = "{ 7480, 7481 }";

/// Something wrong with the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// What `from` sends to `to` gets lost; the other direction does not.
    Cut { from: Host, to: Host },
    /// So many percent of what a host sends and receives get lost.
    Lossy { host: Host, percent: u8 },
    /// Connections from a host to others go through a proxy; open ones are reset.
    Detour(Detour),
}

/// Every rule in force, by the number that its fault has.
#[derive(Debug, Default)]
pub struct Rules {
    active: BTreeMap<u64, Vec<Rule>>,
    next: u64,
}

impl Rules {
    /// None at all, also of what somebody else left behind.
    ///
    /// # Errors
    /// `nft` fails.
    pub fn none(hosts: Vec<Host>) -> anyhow::Result<Self> {
        let rules = Self::default();
        rules.apply(hosts)?;
        Ok(rules)
    }

    /// Adds rules; all of them hold before this returns.
    ///
    /// # Errors
    /// `nft` refuses them.
    pub fn add(&mut self, rules: Vec<Rule>) -> anyhow::Result<u64> {
        self.next += 1;
        let touched: Vec<Host> = rules.iter().map(|rule| rule.place().clone()).collect();
        self.active.insert(self.next, rules);
        self.apply(touched)?;
        Ok(self.next)
    }

    /// Takes rules away again.
    ///
    /// # Errors
    /// `nft` fails.
    pub fn remove(&mut self, number: u64) -> anyhow::Result<()> {
        let rules = self.active.remove(&number).unwrap_or_default();
        self.apply(rules.iter().map(|rule| rule.place().clone()).collect())
    }

    fn apply(&self, mut hosts: Vec<Host>) -> anyhow::Result<()> {
        hosts.sort();
        hosts.dedup();
        for host in hosts {
            let here = self.active.values().flatten().filter(|rule| *rule.place() == host);
            let table = render(here);
            feed(host.tool("nft").args(["-f", "-"]), &table).with_context(|| host.name.clone())?;
        }
        Ok(())
    }
}

impl Rule {
    /// In whose namespace it is kept.
    fn place(&self) -> &Host {
        match self {
            Self::Cut { to, .. } => to,
            Self::Lossy { host, .. } => host,
            Self::Detour(detour) => &detour.from,
        }
    }
}

/// The whole table of one namespace: replaced at once.
fn render<'a>(rules: impl Iterator<Item = &'a Rule>) -> String {
    let (mut input, mut output, mut nat) = (String::new(), String::new(), String::new());
    for rule in rules {
        match rule {
            Rule::Cut { from, .. } => {
                let _ = writeln!(input, "ip saddr {} drop", from.address);
            }
            Rule::Lossy { percent, .. } => {
                let lost = format!("oifname != \"lo\" numgen random mod 100 < {percent} drop");
                let _ = writeln!(output, "{lost}");
                let _ = writeln!(input, "{}", lost.replace("oifname", "iifname"));
            }
            Rule::Detour(detour) => {
                for way in &detour.ways {
                    let (to, port, via) = (way.to.address, way.port, way.proxy_port);
                    // The proxy itself runs in a group of its own.
                    let ours = format!("ip daddr {to} tcp dport {port} meta skgid != {}", super::proxy::GROUP);
                    let _ = writeln!(nat, "{ours} redirect to :{via}");
                    let _ = writeln!(output, "{ours} reject with tcp reset");
                }
            }
        }
    }
    let watched = format!("tcp dport {WATCHED} accept\ntcp sport {WATCHED} accept\n");
    format!(
        "add table inet faults\ndelete table inet faults\ntable inet faults {{\n\
         chain input {{\ntype filter hook input priority 0; policy accept;\n{watched}{input}}}\n\
         chain output {{\ntype filter hook output priority 0; policy accept;\n{watched}{output}}}\n\
         chain nat {{\ntype nat hook output priority -100; policy accept;\n{nat}}}\n}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_all_rules_of_its_host_and_spares_what_is_watched() {
        let (a, b) = (Host::broker(1), Host::broker(2));
        let rules = [Rule::Cut { from: a.clone(), to: b.clone() }, Rule::Lossy { host: b.clone(), percent: 7 }];
        assert!(rules.iter().all(|rule| *rule.place() == b));
        let table = render(rules.iter());
        assert!(table.contains("ip saddr 10.77.0.11 drop"), "{table}");
        assert_eq!(table.matches("mod 100 < 7 drop").count(), 2, "{table}");
        assert_eq!(table.matches("tcp dport { 7480, 7481 } accept").count(), 2, "{table}");
    }
}
