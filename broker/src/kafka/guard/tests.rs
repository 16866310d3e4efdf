//! Every layout against the decoder of its request, and what the guard refuses.

use bytes::{BufMut, Bytes};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::layout::{Field, Kind, Layout};
use super::{ELEMENTS_MAX, Malformed, check};
use crate::kafka::table::{APIS, Api};

/// Writes requests as a layout has them.
struct Scribe<'a> {
    rng: &'a mut StdRng,
    version: i16,
    flexible: bool,
    out: Vec<u8>,
}

fn written(layout: &Layout, version: i16, rng: &mut StdRng) -> Vec<u8> {
    let mut scribe = Scribe { rng, version, flexible: layout.is_flexible(version), out: Vec::new() };
    scribe.fields(layout.fields);
    scribe.out
}

impl Scribe<'_> {
    fn fields(&mut self, fields: &[Field]) {
        let version = self.version;
        for field in fields.iter().filter(|field| field.tag.is_none() && field.is_in(version)) {
            self.value(&field.kind);
        }
        if self.flexible {
            self.tags(fields);
        }
    }

    fn tags(&mut self, fields: &[Field]) {
        let known: Vec<_> = fields.iter().filter(|field| field.tag.is_some() && field.is_in(self.version)).collect();
        let shown = self.rng.random_range(0..=known.len());
        self.out.put_u8(u8::try_from(shown).unwrap() + 1);
        for field in &known[..shown] {
            self.out.put_u8(u8::try_from(field.tag.unwrap()).unwrap());
            let before = std::mem::take(&mut self.out);
            self.value(&field.kind);
            let value = std::mem::replace(&mut self.out, before);
            self.out.put_u8(u8::try_from(value.len()).unwrap());
            self.out.extend(value);
        }
        // One that nobody knows.
        self.out.extend([100, 2, 7, 7]);
    }

    fn value(&mut self, kind: &Kind) {
        match kind {
            Kind::Fixed(bytes) => (0..*bytes).for_each(|_| self.out.push(self.rng.random_range(0..2))),
            Kind::Text => {
                let length = self.rng.random_range(0..9_u8);
                if self.flexible {
                    self.out.put_u8(length + 1)
                } else {
                    self.out.put_u16(u16::from(length))
                }
                self.out.extend((0..length).map(|n| b'a' + n));
            }
            Kind::Blob => {
                let length = self.rng.random_range(0..9_u8);
                self.length(length);
                self.out.extend((0..length).map(|n| n.wrapping_mul(77)));
            }
            Kind::Struct(fields) => self.fields(fields),
            Kind::MaybeStruct(fields) => {
                let there = self.rng.random::<bool>();
                self.out.put_i8(if there { 1 } else { -1 });
                if there {
                    self.fields(fields);
                }
            }
            Kind::Array(element) => {
                let count = self.rng.random_range(0..3_u8);
                self.length(count);
                (0..count).for_each(|_| self.value(element));
            }
        }
    }

    fn length(&mut self, length: u8) {
        if self.flexible { self.out.put_u8(length + 1) } else { self.out.put_i32(i32::from(length)) }
    }
}

fn every_version() -> impl Iterator<Item = (&'static Api, i16)> {
    APIS.iter().flat_map(|api| (api.min..=api.max).map(move |version| (api, version)))
}

#[test]
fn every_layout_is_what_the_decoder_reads() {
    let mut rng = StdRng::seed_from_u64(1);
    for (api, version) in every_version() {
        for _ in 0..100 {
            let bytes = Bytes::from(written(api.layout, version, &mut rng));
            let measured = api.measure(version, &bytes);
            let all = bytes.len();
            assert_eq!(measured, Ok((all, Ok(all))), "{} {version}: {bytes:?}", api.name);
        }
    }
}

/// What follows a request is not looked at, as with Kafka.
#[test]
fn trailing_bytes_are_tolerated() {
    let mut rng = StdRng::seed_from_u64(2);
    for (api, version) in every_version() {
        let mut bytes = written(api.layout, version, &mut rng);
        let length = bytes.len();
        bytes.extend(b"more");
        assert_eq!(api.measure(version, &Bytes::from(bytes)), Ok((length, Ok(length))), "{} {version}", api.name);
    }
}

/// A request that lies about its lengths costs nothing: it is refused, or what it claims is
/// there. Without the guard the process would be aborted here.
#[test]
fn lengths_that_lie_are_refused_before_anything_is_reserved() {
    let mut rng = StdRng::seed_from_u64(3);
    let lies: [&[u8]; 4] =
        [&[0x7f, 0xff, 0xff, 0xff], &[0xff, 0xff, 0xff, 0xff, 0x0f], &[0x00, 0xff, 0xff, 0xff], &[0x80]];
    for (api, version) in every_version() {
        for _ in 0..200 {
            let mut bytes = written(api.layout, version, &mut rng);
            let lie = lies[rng.random_range(0..lies.len())];
            let at = rng.random_range(0..=bytes.len());
            let end = (at + lie.len()).min(bytes.len());
            bytes.splice(at..end, lie.iter().copied());
            if let Ok((walked, Ok(decoded))) = api.measure(version, &Bytes::from(bytes.clone())) {
                assert_eq!(walked, decoded, "{} {version}: {bytes:?}", api.name);
            }
        }
    }
}

#[test]
fn the_request_that_asked_for_154_gigabytes() {
    let metadata = Api::find(3).unwrap();
    let claims = [&i32::MAX.to_be_bytes()[..], &[0; 20]].concat();
    assert_eq!(check(metadata.layout, 1, &claims), Err(Malformed::Truncated));
    let compact = [&[0xff, 0xff, 0xff, 0xff, 0x07][..], &[0; 20]].concat();
    assert_eq!(check(metadata.layout, 12, &compact), Err(Malformed::Truncated));
}

#[test]
fn elements_are_counted_over_the_whole_request() {
    let metadata = Api::find(3).unwrap();
    let names = |count: usize| [&i32::try_from(count).unwrap().to_be_bytes()[..], &vec![0; 2 * count]].concat();
    assert_eq!(check(metadata.layout, 1, &names(ELEMENTS_MAX)), Ok(4 + 2 * ELEMENTS_MAX));
    assert_eq!(check(metadata.layout, 1, &names(ELEMENTS_MAX + 1)), Err(Malformed::TooManyElements));
}

#[test]
fn lengths_that_are_none() {
    let metadata = Api::find(3).unwrap();
    assert_eq!(check(metadata.layout, 1, &(-1_i32).to_be_bytes()), Ok(4));
    assert_eq!(check(metadata.layout, 1, &(-2_i32).to_be_bytes()), Err(Malformed::BadLength));
    let endless = [0x80; 9];
    assert_eq!(check(metadata.layout, 12, &endless), Err(Malformed::BadLength));
}
