//! The tables `[transfer]` and `[images]`: what is fetched when, what is switched to when, and which images stay.

use skerry_transfer::{Budget, Marks, Rules, UnknownTime, Windows};
use skerry_wire::job::OnDeltaFailure;

use super::{ConfigError, Keys, size};

/// The least rate: a server gives up a connection that takes nothing for a minute.
const LEAST_RATE: u64 = 4 * 1024;
/// Bundles that are kept unless it is said otherwise.
const KEEP_BUNDLES: u64 = 64 << 20;

/// What is fetched when, and when it is switched to.
#[derive(Debug, Clone)]
pub(crate) struct Transfer {
    /// When which bundle may be fetched.
    pub(crate) rules: Rules,
    /// Bytes of bundles a second; none for no limit.
    pub(crate) rate: Option<u64>,
    /// When a newer version may take the place of one that runs.
    pub(crate) apply: Windows,
    /// The table as it was read; two are equal when it is.
    read: toml::Table,
}

impl PartialEq for Transfer {
    fn eq(&self, other: &Self) -> bool {
        self.read == other.read
    }
}

impl Eq for Transfer {}

pub(super) fn transfer(keys: &mut Keys<'_>) -> Result<Transfer, ConfigError> {
    let read = keys.table.clone();
    let budget = budget(keys)?;
    let rate = keys.size("rate", "64KiB")?;
    if rate.is_some_and(|rate| rate < LEAST_RATE) {
        return Err(keys.error("rate", "must be at least \"4KiB\" a second: slower, and servers give the connection up"));
    }
    let zone = keys.text("zone")?.unwrap_or_else(|| "UTC".to_owned());
    let unknown = match keys.text("unknown_time")?.as_deref() {
        None | Some("closed") => UnknownTime::Closed,
        Some("open") => UnknownTime::Open,
        Some(_) => return Err(keys.error("unknown_time", "must be \"open\" or \"closed\"")),
    };
    let mut windows = |key: &'static str| {
        let texts = keys.list(key)?;
        Windows::parse(&texts, &zone, unknown).map_err(|error| keys.error(key, error.to_string()))
    };
    let (download, apply) = (windows("download")?, windows("apply")?);
    let on_delta_failure = match keys.text("on_delta_failure")?.as_deref() {
        Some("hold") => OnDeltaFailure::Hold,
        Some("retry") => OnDeltaFailure::Retry,
        Some("full") => OnDeltaFailure::Full,
        // What costs money is not spent without leave.
        None if budget.is_some() => OnDeltaFailure::Hold,
        None => OnDeltaFailure::Full,
        Some(_) => return Err(keys.error("on_delta_failure", "must be \"hold\", \"retry\" or \"full\"")),
    };
    Ok(Transfer { rules: Rules { budget, windows: download, on_delta_failure }, rate, apply, read })
}

fn budget(keys: &mut Keys<'_>) -> Result<Option<Budget>, ConfigError> {
    let monthly = keys.size("budget", "50MB")?;
    let reserve = keys.size("reserve", "5MB")?;
    let urgent = keys.number("reserve_priority", 0, 100)?.unwrap_or(80);
    let day = keys.number("month_begins", 1, 28)?.unwrap_or(1);
    let Some(monthly) = monthly else {
        return match reserve {
            Some(_) => Err(keys.error("reserve", "needs a `budget` to be taken from")),
            None => Ok(None),
        };
    };
    Budget::new(monthly, reserve.unwrap_or(monthly / 10), urgent, day).map(Some).map_err(|error| keys.error("reserve", error.to_string()))
}

pub(super) fn images(keys: &mut Keys<'_>) -> Result<(Marks, u64), ConfigError> {
    let default = Marks::default();
    let high = keys.number("collect_above", 1, 100)?.unwrap_or(default.high);
    let low = keys.number("collect_below", 0, 100)?.unwrap_or(default.low.min(high));
    if low > high {
        return Err(keys.error("collect_below", format!("must be at most `collect_above`, which is {high}")));
    }
    let kept = keys.size("keep_bundles", "64MiB")?.unwrap_or(KEEP_BUNDLES);
    Ok((Marks { high, low }, kept))
}

impl Keys<'_> {
    fn size(&mut self, key: &str, example: &str) -> Result<Option<u64>, ConfigError> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        size(&text).map(Some).ok_or_else(|| self.error(key, format!("must be a size, e.g. \"{example}\"")))
    }

    fn number(&mut self, key: &str, least: u8, most: u8) -> Result<Option<u8>, ConfigError> {
        let reason = format!("must be a number from {least} to {most}");
        match self.table.remove(key) {
            None => Ok(None),
            Some(toml::Value::Integer(n)) => match u8::try_from(n).ok().filter(|n| (least..=most).contains(n)) {
                Some(n) => Ok(Some(n)),
                None => Err(self.error(key, reason)),
            },
            Some(_) => Err(self.error(key, reason)),
        }
    }

    fn list(&mut self, key: &str) -> Result<Vec<String>, ConfigError> {
        const REASON: &str = "must be a list of windows, e.g. [\"22:00-06:00\", \"Sat,Sun 00:00-24:00\"]";
        let list = match self.table.remove(key) {
            None => return Ok(vec![]),
            Some(toml::Value::Array(list)) => list,
            Some(_) => return Err(self.error(key, REASON)),
        };
        let text = |value| if let toml::Value::String(text) = value { Ok(text) } else { Err(self.error(key, REASON)) };
        list.into_iter().map(text).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn parse(lines: &str) -> Result<Config, String> {
        let text = format!("server = \"https://s\"\nca = \"ca.pem\"\nroot = \"root.cose\"\n{lines}");
        Config::parse(Path::new("/etc/agent.toml"), &text).map(|(config, _)| config).map_err(|e| e.to_string())
    }

    #[test]
    fn what_is_not_said() {
        let config = parse("").unwrap();
        assert_eq!((config.marks, config.keep_bundles, config.transfer.rate), (Marks { high: 80, low: 70 }, 64 << 20, None));
        let rules = config.transfer.rules;
        assert!(rules.budget.is_none() && rules.windows.is_always() && config.transfer.apply.is_always());
        assert_eq!(rules.on_delta_failure, OnDeltaFailure::Full);
        let rules = parse("[transfer]\nbudget = \"50MB\"").unwrap().transfer.rules;
        assert_eq!(rules.budget, Some(Budget::new(50_000_000, 5_000_000, 80, 1).unwrap()));
        assert_eq!(rules.on_delta_failure, OnDeltaFailure::Hold);
        assert_eq!(parse("[images]\ncollect_above = 50").unwrap().marks, Marks { high: 50, low: 50 });
    }

    #[test]
    fn wrong_values_name_their_key() {
        for (lines, expected) in [
            ("[transfer]\nrate = \"1KiB\"", "`transfer.rate` must be at least"),
            ("[transfer]\nrate = 5", "`transfer.rate`"),
            ("[transfer]\nreserve = \"5MB\"", "needs a `budget`"),
            ("[transfer]\nbudget = \"5MB\"\nreserve = \"5MB\"", "takes the whole budget"),
            ("[transfer]\nbudget = \"5MB\"\nmonth_begins = 29", "from 1 to 28"),
            ("[transfer]\ndownload = \"22:00-06:00\"", "must be a list"),
            ("[transfer]\ndownload = [\"22-06\"]", "`22-06` is no window"),
            ("[transfer]\napply = [\"22:00-06:00\"]\nzone = \"Mars\"", "no time zone `Mars`"),
            ("[transfer]\nunknown_time = \"maybe\"", "\"open\" or \"closed\""),
            ("[transfer]\non_delta_failure = \"panic\"", "\"hold\", \"retry\" or \"full\""),
            ("[images]\ncollect_above = 101", "from 1 to 100"),
            ("[images]\ncollect_below = 90", "at most `collect_above`"),
            ("[images]\nkeep_bundles = \"much\"", "must be a size"),
        ] {
            let error = parse(lines).unwrap_err();
            assert!(error.contains(expected), "{lines}: {error}");
        }
    }
}
