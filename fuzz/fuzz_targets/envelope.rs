//! Any bytes as an envelope: an error, since nobody signed them; and what an unverified look gives is bounded.
#![no_main]

use libfuzzer_sys::fuzz_target;
use skerry_trust::{KeyRing, SigningKey, envelope};
use skerry_wire::manifest::Manifest;
use skerry_wire::poll::{PollReply, PollRequest};

fuzz_target!(|data: &[u8]| {
    let key = SigningKey::from_text(skerry_fuzz::KEY).expect("the key of the vectors");
    let keys = KeyRing::from(key.public());
    let limit = 64 * 1024;
    let _ = envelope::peek::<PollRequest>(data, limit);
    for purpose in [PollRequest::PURPOSE, Manifest::PURPOSE] {
        assert!(envelope::verify(data, purpose, &keys, limit).is_err(), "nobody signed this for {purpose}");
        // The same bytes with a good signature: what is decoded below it.
        let signed = envelope::sign(&key, purpose, data);
        let _ = envelope::open::<PollRequest>(&signed, purpose, &keys, limit);
        let _ = envelope::open::<PollReply>(&signed, purpose, &keys, limit);
        let _ = envelope::open::<Manifest>(&signed, purpose, &keys, limit);
    }
});
