//! Places in a log as people write them: start, end, an offset, or a time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use baton_client::{Offset, Start};

/// Numbers from here on are milliseconds since 1970 (the year 2001), below they are offsets.
/// An offset that large is written `offset:N`.
const FIRST_TIME_MS: u64 = 1_000_000_000_000;

/// `start`, `end`, an offset, `offset:N`, milliseconds since 1970, `2026-01-31T12:00:00Z`, or
/// `-10m` for ten minutes ago.
pub fn parse(text: &str, now_ms: i64) -> Result<Start, String> {
    match text {
        "start" => return Ok(Start::First),
        "end" => return Ok(Start::End),
        _ => {}
    }
    if let Some(offset) = text.strip_prefix("offset:") {
        return offset.parse().map(|offset| Start::Offset(Offset(offset))).map_err(|_| expected(text));
    }
    if let Ok(number) = text.parse::<u64>() {
        return Ok(match i64::try_from(number) {
            Ok(time) if number >= FIRST_TIME_MS => Start::Time(time),
            _ => Start::Offset(Offset(number)),
        });
    }
    if let Some(ago) = text.strip_prefix('-') {
        let ago = humantime::parse_duration(ago).map_err(|_| expected(text))?;
        return Ok(Start::Time(now_ms.saturating_sub(millis(ago))));
    }
    instant(text).map(Start::Time).ok_or_else(|| expected(text))
}

/// RFC 3339, in milliseconds since 1970; a blank for the `T` and a missing zone (UTC) pass.
fn instant(text: &str) -> Option<i64> {
    let (local, ahead_ms) = match text.len().checked_sub("+00:00".len()).and_then(|at| text.split_at_checked(at)) {
        Some((local, zone)) if local.len() > "2026-01-31".len() && zone.starts_with(['+', '-']) => {
            (local, ahead(zone)?)
        }
        _ => (text, 0),
    };
    let time = humantime::parse_rfc3339_weak(local).ok()?;
    Some(millis(time.duration_since(UNIX_EPOCH).ok()?) - ahead_ms)
}

/// `+02:00`: how far local time is ahead of UTC, in milliseconds.
fn ahead(zone: &str) -> Option<i64> {
    let (hours, minutes) = zone.get(1..)?.split_once(':')?;
    let (hours, minutes) = (hours.parse::<u8>().ok()?, minutes.parse::<u8>().ok()?);
    let size = (i64::from(hours) * 60 + i64::from(minutes)) * 60_000;
    (hours < 24 && minutes < 60).then_some(if zone.starts_with('-') { -size } else { size })
}

/// Milliseconds since 1970 as RFC 3339; the bare number outside what that can say.
pub fn rfc3339(time_ms: i64) -> String {
    let time = u64::try_from(time_ms).ok().and_then(|ms| UNIX_EPOCH.checked_add(Duration::from_millis(ms)));
    // Years above 9999 have no form in RFC 3339.
    match time.filter(|_| time_ms < 253_402_300_800_000) {
        Some(time) => humantime::format_rfc3339_millis(time).to_string(),
        None => time_ms.to_string(),
    }
}

pub fn now_ms() -> i64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn expected(text: &str) -> String {
    format!(
        "{text:?} is none of: start, end, an offset, offset:N, milliseconds since 1970, \
         a time like 2026-01-31T12:00:00Z, or -10m for ten minutes ago"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_say_a_place_is_understood() {
        let now = 1_800_000_000_000;
        let cases = [
            ("start", Start::First),
            ("end", Start::End),
            ("0", Start::Offset(Offset(0))),
            ("42", Start::Offset(Offset(42))),
            ("offset:1700000000000", Start::Offset(Offset(1_700_000_000_000))),
            ("1700000000000", Start::Time(1_700_000_000_000)),
            ("-10m", Start::Time(now - 600_000)),
            ("-1h 30m", Start::Time(now - 5_400_000)),
            ("1970-01-02T00:00:00Z", Start::Time(86_400_000)),
            ("1970-01-02 00:00:00", Start::Time(86_400_000)),
            ("1970-01-02T02:00:00.5+02:00", Start::Time(86_400_500)),
            ("1970-01-01T23:30:00-00:30", Start::Time(86_400_000)),
        ];
        for (text, start) in cases {
            assert_eq!(parse(text, now), Ok(start), "{text}");
        }
        for bad in [
            "",
            "begin",
            "-",
            "-10x",
            "offset:",
            "offset:-1",
            "2026-13-01T00:00:00Z",
            "2026-01-01T00:00:00+25:00",
            "2026-01-01T00:00:00+é:",
            "-5",
        ] {
            assert!(parse(bad, now).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn times_are_shown_even_when_they_are_absurd() {
        assert_eq!(rfc3339(86_400_123), "1970-01-02T00:00:00.123Z");
        assert_eq!(rfc3339(-1), "-1");
        assert_eq!(rfc3339(i64::MAX), i64::MAX.to_string());
    }
}
