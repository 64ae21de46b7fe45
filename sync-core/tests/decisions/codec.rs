//! Encodings survive themselves, and no bytes break a decoder.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use sync_core::model::Value;
use sync_core::protocol::{Format, SyncRequest, SyncResponse, decode, encode};

use crate::arbitrary::{config, mutate, request, response, value};

const FORMATS: [Format; 2] = [Format::MessagePack, Format::Json];

fn read_all(bytes: &[u8]) {
    for format in FORMATS {
        // What is decoded can be encoded again.
        drop(decode::<SyncRequest>(bytes, format).map(|message| encode(&message, format)));
        drop(decode::<SyncResponse>(bytes, format).map(|message| encode(&message, format)));
    }
    drop(Value::from_bytes(bytes).map(|value| value.to_json()));
    drop(std::str::from_utf8(bytes).map(Value::parse_json));
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn canonical_bytes_are_read_back_and_as_long_as_said(value in value()) {
        let bytes = value.to_bytes();
        prop_assert_eq!(bytes.len(), value.encoded_len());
        let again = Value::from_bytes(&bytes).unwrap();
        prop_assert_eq!(again.to_bytes(), bytes);
        prop_assert_eq!(again, value);
    }

    #[test]
    fn the_json_form_is_read_back(value in value()) {
        prop_assert_eq!(Value::parse_json(&value.to_json()).unwrap(), value);
    }

    #[test]
    fn requests_survive_both_encodings(message in request()) {
        for format in FORMATS {
            prop_assert_eq!(&decode::<SyncRequest>(&encode(&message, format), format).unwrap(), &message);
        }
    }

    #[test]
    fn responses_survive_both_encodings(message in response()) {
        for format in FORMATS {
            prop_assert_eq!(&decode::<SyncResponse>(&encode(&message, format), format).unwrap(), &message);
        }
    }

    #[test]
    fn no_bytes_break_a_decoder(bytes in vec(any::<u8>(), 0..200)) {
        read_all(&bytes);
    }

    #[test]
    fn no_changed_message_breaks_a_decoder(
        asked in request(),
        answered in response(),
        changes in vec((any::<Index>(), any::<u8>(), any::<u8>()), 1..6),
    ) {
        for format in FORMATS {
            read_all(&mutate(encode(&asked, format), changes.clone()));
            read_all(&mutate(encode(&answered, format), changes.clone()));
        }
    }
}
