//! `/brokers/{id}`: how to reach a live broker, ephemeral.
//!
//! ```text
//!  3  disk           u128
//! 19  incarnation    u64
//! 27  features       u16 lowest, u16 highest: the feature levels that it can run
//! 31  draining       u8     1: it shuts down and is not admitted to any ISR (KAFKA-14140)
//! 32  rack           u8 0, or 1 and a text
//!     endpoints      count, then each: name, protocol, host (texts), port u16
//! ```

use baton_core::ids::{BrokerId, DiskId, Incarnation};

use super::codec::{Reader, Writer, Znode, ZnodeError};

pub const ROOT: &str = "/brokers";

#[must_use]
pub fn path(broker: BrokerId) -> String {
    format!("{ROOT}/{broker}")
}

/// The broker of a path or name below [`ROOT`]; none if it is not a broker's.
#[must_use]
pub fn broker_of(path: &str) -> Option<BrokerId> {
    let name = path.strip_prefix(ROOT).and_then(|rest| rest.strip_prefix('/')).unwrap_or(path);
    let digits = !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| name.parse().ok()).flatten().map(BrokerId)
}

/// One address of a broker.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// The listener's name: clients and peers choose by it.
    pub name: String,
    /// Such as `grpc`, `kafka`, `peer`.
    pub protocol: String,
    pub host: String,
    pub port: u16,
}

/// Feature levels, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeatureRange {
    pub min: u16,
    pub max: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerRegistration {
    pub disk: DiskId,
    pub incarnation: Incarnation,
    pub features: FeatureRange,
    pub draining: bool,
    pub rack: Option<String>,
    pub endpoints: Vec<Endpoint>,
}

impl BrokerRegistration {
    /// The first endpoint of a listener.
    #[must_use]
    pub fn endpoint(&self, listener: &str) -> Option<&Endpoint> {
        self.endpoints.iter().find(|e| e.name == listener)
    }
}

impl Znode for BrokerRegistration {
    const NAME: &'static str = "/brokers/{id}";
    const KIND: u8 = b'B';
    const VERSION: u8 = 1;

    fn write(&self, out: &mut Writer) {
        out.u128(self.disk.0);
        out.u64(self.incarnation.0);
        out.u16(self.features.min);
        out.u16(self.features.max);
        out.flag(self.draining);
        out.optional_text(self.rack.as_deref());
        out.count(self.endpoints.len());
        for endpoint in &self.endpoints {
            out.text(&endpoint.name);
            out.text(&endpoint.protocol);
            out.text(&endpoint.host);
            out.u16(endpoint.port);
        }
    }

    fn read(input: &mut Reader<'_>, _version: u8) -> Result<Self, ZnodeError> {
        Ok(Self {
            disk: input.disk()?,
            incarnation: input.incarnation()?,
            features: FeatureRange { min: input.u16()?, max: input.u16()? },
            draining: input.flag()?,
            rack: input.optional_text()?,
            endpoints: input.list(5, |input| {
                Ok(Endpoint { name: input.text()?, protocol: input.text()?, host: input.text()?, port: input.u16()? })
            })?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::znode::codec::checks::{check_znode, has_bytes};
    use proptest::prelude::*;

    fn endpoint() -> impl Strategy<Value = Endpoint> {
        (".{0,5}", "[a-z]{0,5}", ".{0,9}", any::<u16>()).prop_map(|(name, protocol, host, port)| Endpoint {
            name,
            protocol,
            host,
            port,
        })
    }

    fn registration() -> impl Strategy<Value = BrokerRegistration> {
        let rack = prop::option::of(".{0,9}");
        let endpoints = prop::collection::vec(endpoint(), 0..4);
        let numbers = (any::<u128>(), any::<u64>(), any::<u16>(), any::<u16>());
        (numbers, any::<bool>(), rack, endpoints).prop_map(
            |((disk, incarnation, min, max), draining, rack, endpoints)| BrokerRegistration {
                disk: DiskId(disk),
                incarnation: Incarnation(incarnation),
                features: FeatureRange { min, max },
                draining,
                rack,
                endpoints,
            },
        )
    }

    check_znode!(registration());

    #[test]
    fn golden_bytes() {
        let value = BrokerRegistration {
            disk: DiskId(1),
            incarnation: Incarnation(2),
            features: FeatureRange { min: 1, max: 3 },
            draining: true,
            rack: Some("r".to_owned()),
            endpoints: vec![Endpoint {
                name: "in".to_owned(),
                protocol: "grpc".to_owned(),
                host: "h".to_owned(),
                port: 7400,
            }],
        };
        has_bytes(
            &value,
            "01ba42 00000000000000000000000000000001 0000000000000002 0001 0003 01 010172
             01 02696e 0467727063 0168 1ce8",
        );
    }

    #[test]
    fn brokers_are_found_in_paths() {
        assert_eq!(broker_of("/brokers/12"), Some(BrokerId(12)));
        assert_eq!(broker_of("12"), Some(BrokerId(12)));
        for other in ["/brokers", "/brokers/", "/brokers/x", "/brokers/+1", "/p/1", "99999999999"] {
            assert_eq!(broker_of(other), None, "{other}");
        }
    }
}
