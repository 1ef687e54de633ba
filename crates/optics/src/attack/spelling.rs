//! The short form of an attack: its kind, then its numbers in the order of the fields, all joined by colons. What is
//! left out at the end has its default. [`Attack::SHORT_FORMS`] shows them all.

use core::fmt;
use core::str::{FromStr, Split};

use super::{Attack, BlindingLight, Within, alike, all, blinding_current, flood_light, none, trojan_power};

/// Why text is no attack.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AttackError {
    /// The kind is not known.
    #[error("no attack is called {found:?}; there are {}", KINDS.join(", "))]
    Kind {
        /// What stands there.
        found: String,
    },
    /// A number is needed.
    #[error("{field} is missing")]
    Missing {
        /// Which one.
        field: &'static str,
    },
    /// A word or number that cannot be read.
    #[error("{field} is {found:?}, must be {rule}")]
    Word {
        /// Which one.
        field: &'static str,
        /// What stands there.
        found: String,
        /// What could.
        rule: &'static str,
    },
    /// A number out of its range.
    #[error("{field} is {value}, must be {min} to {max}")]
    Range {
        /// Which one.
        field: &'static str,
        /// What it is.
        value: f64,
        /// Least value allowed.
        min: i32,
        /// Largest value allowed.
        max: i32,
    },
    /// More than the kind takes.
    #[error("{kind} does not take {found:?}")]
    TooMuch {
        /// The kind.
        kind: String,
        /// The first word too many.
        found: String,
    },
}

impl Attack {
    /// How each attack is written in short; what stands in brackets can be left out.
    pub const SHORT_FORMS: [&str; 7] = [
        "intercept-resend[:fraction]",
        "photon-number-splitting",
        "blinding[:continuous|pulsed[:compensated|uncompensated[:photocurrent_ua]]]",
        "time-shift:shift_ps[:opposite[:efficiency_ratio]]",
        "trojan-light[:incoming_nw]",
        "cut",
        "flood[:photons_per_gate]",
    ];
}

impl FromStr for Attack {
    type Err = AttackError;

    fn from_str(text: &str) -> Result<Self, AttackError> {
        let (kind, _) = text.split_once(':').unwrap_or((text, ""));
        let mut words = Words(text.split(':'));
        words.0.next();
        let attack = match kind {
            "intercept-resend" => Self::InterceptResend { fraction: words.number("fraction")?.unwrap_or_else(all) },
            "photon-number-splitting" => Self::PhotonNumberSplitting {},
            "blinding" => Self::Blinding {
                light: match words.0.next() {
                    None | Some("continuous") => BlindingLight::Continuous,
                    Some("pulsed") => BlindingLight::Pulsed,
                    Some(other) => return Err(word("light", other, "continuous or pulsed")),
                },
                compensated: match words.0.next() {
                    None | Some("uncompensated") => false,
                    Some("compensated") => true,
                    Some(other) => return Err(word("compensated", other, "compensated or uncompensated")),
                },
                photocurrent_ua: words.number("photocurrent_ua")?.unwrap_or_else(blinding_current),
            },
            "time-shift" => Self::TimeShift {
                shift_ps: words.number("shift_ps")?.ok_or(AttackError::Missing { field: "shift_ps" })?,
                opposite: words.number("opposite")?.unwrap_or_else(none),
                efficiency_ratio: words.number("efficiency_ratio")?.unwrap_or_else(alike),
            },
            "trojan-light" => {
                Self::TrojanLight { incoming_nw: words.number("incoming_nw")?.unwrap_or_else(trojan_power) }
            }
            "cut" => Self::Cut {},
            "flood" => Self::Flood { photons_per_gate: words.number("photons_per_gate")?.unwrap_or_else(flood_light) },
            other => return Err(AttackError::Kind { found: other.to_owned() }),
        };
        match words.0.next() {
            None => Ok(attack),
            Some(found) => Err(AttackError::TooMuch { kind: kind.to_owned(), found: found.to_owned() }),
        }
    }
}

impl fmt::Display for Attack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InterceptResend { fraction } => write!(f, "intercept-resend:{fraction}"),
            Self::PhotonNumberSplitting {} => f.write_str("photon-number-splitting"),
            Self::Blinding { light, compensated, photocurrent_ua } => {
                let light = match light {
                    BlindingLight::Continuous => "continuous",
                    BlindingLight::Pulsed => "pulsed",
                };
                let compensated = if *compensated { "compensated" } else { "uncompensated" };
                write!(f, "blinding:{light}:{compensated}:{photocurrent_ua}")
            }
            Self::TimeShift { shift_ps, opposite, efficiency_ratio } => {
                write!(f, "time-shift:{shift_ps}:{opposite}:{efficiency_ratio}")
            }
            Self::TrojanLight { incoming_nw } => write!(f, "trojan-light:{incoming_nw}"),
            Self::Cut {} => f.write_str("cut"),
            Self::Flood { photons_per_gate } => write!(f, "flood:{photons_per_gate}"),
        }
    }
}

struct Words<'a>(Split<'a, char>);

impl Words<'_> {
    fn number<const MIN: i32, const MAX: i32>(
        &mut self,
        field: &'static str,
    ) -> Result<Option<Within<MIN, MAX>>, AttackError> {
        let Some(text) = self.0.next() else { return Ok(None) };
        let value = text.parse().map_err(|_| word(field, text, "a number"))?;
        Within::new(value).map(Some).map_err(|_| AttackError::Range { field, value, min: MIN, max: MAX })
    }
}

fn word(field: &'static str, found: &str, rule: &'static str) -> AttackError {
    AttackError::Word { field, found: found.to_owned(), rule }
}

const KINDS: [&str; 7] =
    ["intercept-resend", "photon-number-splitting", "blinding", "time-shift", "trojan-light", "cut", "flood"];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_kind_has_a_short_form_that_reads_back() {
        for text in [
            "intercept-resend:0.5",
            "photon-number-splitting",
            "blinding:pulsed:compensated:20",
            "blinding:continuous:uncompensated:50",
            "time-shift:-300:0.5:1.4",
            "trojan-light:5000",
            "cut",
            "flood:0.1",
        ] {
            let attack: Attack = text.parse().unwrap();
            assert_eq!(attack.to_string(), text);
            let json = serde_json::to_string(&attack).unwrap();
            assert_eq!(serde_json::from_str::<Attack>(&json).unwrap(), attack, "{json}");
        }
    }

    #[test]
    fn defaults_are_those_of_the_long_form() {
        for kind in KINDS.into_iter().filter(|kind| *kind != "time-shift") {
            let long: Attack = toml::from_str(&format!("kind = \"{kind}\"")).unwrap();
            assert_eq!(kind.parse::<Attack>().unwrap(), long);
        }
        let long: Attack = toml::from_str("kind = \"time-shift\"\nshift_ps = 300").unwrap();
        assert_eq!("time-shift:300".parse::<Attack>().unwrap(), long);
    }

    #[test]
    fn errors_say_what_is_wrong() {
        for (text, message) in [
            ("intercept-resend:1.5", "fraction is 1.5, must be 0 to 1"),
            ("intercept-resend:NaN", "fraction is NaN, must be 0 to 1"),
            ("intercept-resend:half", "fraction is \"half\", must be a number"),
            ("intercept-resend:0.5:1", "intercept-resend does not take \"1\""),
            ("blinding:bright", "light is \"bright\", must be continuous or pulsed"),
            ("blinding:pulsed:yes", "compensated is \"yes\", must be compensated or uncompensated"),
            ("time-shift", "shift_ps is missing"),
            ("cut:", "cut does not take \"\""),
        ] {
            assert_eq!(text.parse::<Attack>().unwrap_err().to_string(), message);
        }
        let unknown = "tap".parse::<Attack>().unwrap_err().to_string();
        assert!(unknown.starts_with("no attack is called \"tap\"; there are intercept-resend, "), "{unknown}");
        for (toml, part) in [
            ("kind = \"intercept-resend\"\nfraction = 1.5", "is 1.5, must be 0 to 1"),
            ("kind = \"intercept-resend\"\nfractoin = 0.5", "unknown field `fractoin`"),
            ("kind = \"cut\"\nfraction = 0.5", "unknown field `fraction`"),
            ("kind = \"tap\"", "unknown variant `tap`"),
            ("kind = \"time-shift\"", "missing field `shift_ps`"),
        ] {
            let message = toml::from_str::<Attack>(toml).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn every_kind_is_shown() {
        for (kind, form) in KINDS.into_iter().zip(Attack::SHORT_FORMS) {
            assert_eq!(form.split(['[', ':']).next(), Some(kind));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_an_attack_or_an_error(text in "[a-z:0-9.-]{0,40}") {
            if let Ok(attack) = text.parse::<Attack>() {
                prop_assert_eq!(attack.to_string().parse::<Attack>().unwrap(), attack);
            }
        }
    }
}
