//! Devices that are registered to be woken: what a registration is, and which of them stay.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fmt;

use sync_core::model::{DeviceId, InvalidName, Timestamp};

/// A device that asked to be woken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Which device.
    pub device: DeviceId,
    /// Who delivers to it.
    pub platform: Platform,
    /// Its address there.
    pub token: PushToken,
    /// What its user calls it.
    pub name: Option<DeviceLabel>,
    /// When it registered last, by the server's clock.
    pub registered_at: Timestamp,
}

/// Who delivers messages to a device: those that Amazon SNS and Cognito know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Platform {
    /// Apple's service.
    Apns,
    /// Apple's service for apps in development.
    ApnsSandbox,
    /// Google's service.
    Fcm,
    /// Amazon's service.
    Adm,
}

/// The address of a device at its platform. Who has it may be able to wake the device, so no log shows it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PushToken(String);

/// What a user calls a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceLabel(String);

/// Registered devices of an owner.
pub const DEVICES_MAX: usize = 100;
/// A token's length in bytes.
pub const PUSH_TOKEN_BYTES_MAX: usize = 4_096;
/// A label's length in bytes.
pub const LABEL_BYTES_MAX: usize = 128;

/// Of registrations in order, those that stay: for each device and for each token the first, and at most
/// [`DEVICES_MAX`]. A token that came to another device, as when an app was installed anew, wakes only that one.
pub fn first_of_each(all: impl IntoIterator<Item = Registration>) -> Vec<Registration> {
    let (mut devices, mut tokens) = (BTreeSet::new(), BTreeSet::new());
    let is_first = |registration: &Registration| {
        let Registration { device, platform, token, .. } = registration;
        // Both are to be noted, whatever the other says.
        let (new_device, new_token) = (devices.insert(*device), tokens.insert((*platform, token.clone())));
        new_device && new_token
    };
    all.into_iter().filter(is_first).take(DEVICES_MAX).collect()
}

/// The latest registration first.
pub fn sort_latest_first(registrations: &mut [Registration]) {
    registrations.sort_by_key(|registration| (Reverse(registration.registered_at), registration.device));
}

impl Platform {
    const ALL: [Self; 4] = [Self::Apns, Self::ApnsSandbox, Self::Fcm, Self::Adm];

    /// What it is called.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Apns => "apns",
            Self::ApnsSandbox => "apns_sandbox",
            Self::Fcm => "fcm",
            Self::Adm => "adm",
        }
    }

    /// Reads what it is called.
    ///
    /// # Errors
    /// If it is none that is known.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        let found = Self::ALL.into_iter().find(|platform| platform.as_str() == text);
        found.ok_or_else(|| invalid("the platform", "it is `apns`, `apns_sandbox`, `fcm` or `adm`".to_owned()))
    }
}

impl PushToken {
    /// Parses a token.
    ///
    /// # Errors
    /// Says which form a valid one has.
    pub fn parse(raw: impl Into<String>) -> Result<Self, InvalidName> {
        let raw = raw.into();
        if (1..=PUSH_TOKEN_BYTES_MAX).contains(&raw.len()) && raw.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Ok(Self(raw));
        }
        Err(invalid(
            "the token",
            format!("it has 1 to {PUSH_TOKEN_BYTES_MAX} letters of printable ASCII without blanks"),
        ))
    }

    /// The token itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PushToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a push token")
    }
}

impl DeviceLabel {
    /// Parses a label.
    ///
    /// # Errors
    /// Says which form a valid one has.
    pub fn parse(raw: impl Into<String>) -> Result<Self, InvalidName> {
        let raw = raw.into();
        if (1..=LABEL_BYTES_MAX).contains(&raw.len()) && !raw.chars().any(char::is_control) {
            return Ok(Self(raw));
        }
        Err(invalid(
            "the device's name",
            format!("it has 1 to {LABEL_BYTES_MAX} bytes of UTF-8 without control characters"),
        ))
    }

    /// The label as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

const fn invalid(what: &'static str, rule: String) -> InvalidName {
    InvalidName { what, rule }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registration(device: u8, token: &str) -> Registration {
        Registration {
            device: DeviceId::from_bytes([device; 16]),
            platform: Platform::Apns,
            token: PushToken::parse(token).unwrap(),
            name: None,
            registered_at: Timestamp(0),
        }
    }

    #[test]
    fn of_each_device_and_each_token_the_first_registration_stays() {
        let kept = |all: &[(u8, &str)]| {
            let kept = first_of_each(all.iter().map(|(device, token)| registration(*device, token)));
            kept.iter().map(|kept| format!("{}{}", kept.device.as_bytes()[0], kept.token.reveal())).collect::<Vec<_>>()
        };
        for (all, expected) in [
            (&[(1, "a"), (2, "b")][..], "1a 2b"),
            (&[(1, "b"), (1, "a")], "1b"),
            (&[(2, "a"), (1, "a")], "2a"),
            // What an earlier one has left behind is not looked at either.
            (&[(1, "a"), (1, "b"), (2, "b"), (3, "b")], "1a"),
        ] {
            assert_eq!(kept(all).join(" "), expected, "{all:?}");
        }
        let mut other = registration(2, "a");
        other.platform = Platform::Fcm;
        assert_eq!(first_of_each([registration(1, "a"), other]).len(), 2);
        let many = (0..=255).map(|device| registration(device, &device.to_string()));
        assert_eq!(first_of_each(many).len(), DEVICES_MAX);
    }

    #[test]
    fn platforms_tokens_and_labels_are_checked_and_tokens_are_not_shown() {
        for text in ["apns", "apns_sandbox", "fcm", "adm"] {
            assert_eq!(Platform::parse(text).unwrap().as_str(), text);
        }
        assert!(Platform::parse("APNS").is_err());
        let long = "x".repeat(PUSH_TOKEN_BYTES_MAX);
        for (text, is_token, is_label) in [
            ("", false, false),
            ("Ada's phone", false, true),
            ("a\nb", false, false),
            ("ü", false, true),
            (&long, true, false),
        ] {
            let found = (PushToken::parse(text).is_ok(), DeviceLabel::parse(text).is_ok());
            assert_eq!(found, (is_token, is_label), "{text}");
        }
        assert!(PushToken::parse(format!("{long}x")).is_err());
        assert_eq!(format!("{:?}", PushToken::parse("secret").unwrap()), "a push token");
    }
}
