//! The codec of all RPCs: prost's, but that a message of very many parts is refused before it is decoded.
//!
//! A part that says nothing takes two bytes on the wire and hundreds once it is decoded, so that a limit in bytes alone
//! lets a request of some MiB take some GB of memory.

use prost::Message;
use prost::bytes::Buf as _;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

use crate::{Reason, Refusal};

/// The most fields that one message may have, each element of a list counted, and how many all messages within one may have
/// together. The largest of the API have a tenth and the half.
const MOST_FIELDS: usize = 100_000;
const MOST_PARTS: usize = 1_000_000;
/// Below that no message of ours is.
const DEEPEST: usize = 8;

/// What the generated clients and servers encode and decode with.
#[derive(Debug)]
pub(crate) struct BoundedCodec<T, U>(ProstCodec<T, U>);

impl<T, U> Default for BoundedCodec<T, U> {
    fn default() -> Self {
        Self(ProstCodec::default())
    }
}

impl<T: Message + 'static, U: Message + Default + 'static> Codec for BoundedCodec<T, U> {
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = BoundedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        self.0.encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        BoundedDecoder(self.0.decoder())
    }
}

/// The decoder of [`BoundedCodec`]. A message of too many parts is refused as `RESOURCE_EXHAUSTED`.
#[derive(Debug)]
pub(crate) struct BoundedDecoder<U>(ProstDecoder<U>);

impl<U: Message + Default> Decoder for BoundedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        if !(Count { fields: MOST_FIELDS, parts: MOST_PARTS }).admits(buffer.chunk(), DEEPEST) {
            let message = format!(
                "the message has more than {MOST_FIELDS} parts in one place, or more than {MOST_PARTS} in all; split it into several"
            );
            return Err(Refusal::new(Reason::TooManyParts, message).into());
        }
        self.0.decode(buffer)
    }
}

/// How many parts there may be.
struct Count {
    /// In each message.
    fields: usize,
    /// In all of them, from here on.
    parts: usize,
}

impl Count {
    /// Whether a message is within the bounds. What is malformed ends it: the decoder tells that, after as many parts.
    ///
    /// On the wire a message within looks as a text does, so each is read as if it were one. A text hardly ever goes for
    /// more than a few parts.
    fn admits(&mut self, mut message: &[u8], depth: usize) -> bool {
        for _ in 0..self.fields {
            let Ok((tag, wire_type)) = decode_key(&mut message) else { return true };
            let Some(left) = self.parts.checked_sub(1) else { return false };
            self.parts = left;
            if wire_type != WireType::LengthDelimited {
                if skip_field(wire_type, tag, &mut message, DecodeContext::default()).is_err() {
                    return true;
                }
                continue;
            }
            let length = decode_varint(&mut message).ok().and_then(|length| usize::try_from(length).ok());
            let Some((within, rest)) = length.and_then(|length| message.split_at_checked(length)) else {
                return true;
            };
            if depth > 0 && !self.admits(within, depth - 1) {
                return false;
            }
            message = rest;
        }
        message.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::{self, BatchApplyEnvironmentsRequest, EnvironmentEntry};

    fn admits(fields: usize, parts: usize, message: &[u8]) -> bool {
        Count { fields, parts }.admits(message, DEEPEST)
    }

    #[test]
    fn parts_are_counted_before_they_are_decoded() {
        let message = |count| {
            let entries = vec![EnvironmentEntry::default(); count];
            BatchApplyEnvironmentsRequest { entries, ..Default::default() }.encode_to_vec()
        };
        assert!(admits(3, 3, &[]) && admits(3, 3, &message(3)));
        assert!(!admits(3, 9, &message(4)) && !admits(9, 3, &message(4)));
        let malformed = [message(3), vec![0x0a, 0xff]].concat();
        assert!(admits(9, 9, &malformed), "the decoder says what is wrong");
    }

    /// As a worker could send them: the list is not at the top.
    #[test]
    fn parts_within_are_counted_too() {
        let report = v1::Report { environments: vec![v1::EnvironmentReport::default(); 1000] };
        let message = v1::SessionRequest { message: Some(v1::session_request::Message::Report(report)) };
        let bytes = message.encode_to_vec();
        assert!(admits(1000, 1001, &bytes));
        assert!(!admits(999, 9999, &bytes) && !admits(9999, 1000, &bytes));
    }

    /// What is as large as the API allows passes, with room to spare.
    #[test]
    fn large_requests_pass() {
        let entry = EnvironmentEntry {
            name: "some-environment-1".to_owned(),
            spec: Some(v1::EnvironmentSpec {
                display_name: "Some environment, with a name for people".to_owned(),
                prefix: "ld:some:environment:1".to_owned(),
                labels: (0..8).map(|number| (format!("label-{number}"), "value".to_owned())).collect(),
                ..Default::default()
            }),
            sdk_key: "sdk-01234567-89ab-cdef-0123-456789abcdef".to_owned(),
            take_over: false,
        };
        let request = BatchApplyEnvironmentsRequest { entries: vec![entry; 10_000], ..Default::default() };
        let bytes = request.encode_to_vec();
        let mut count = Count { fields: MOST_FIELDS, parts: MOST_PARTS };
        assert!(count.admits(&bytes, DEEPEST));
        assert!(count.parts > MOST_PARTS / 3, "{} are left", count.parts);
        let json = format!(r#"{{"key":"flag","rules":[{}]}}"#, r#"{"id":"0123","clauses":[]},"#.repeat(50_000));
        let answer = v1::GetItemResponse { json: json.into_bytes(), ..Default::default() };
        assert!(admits(100, 100, &answer.encode_to_vec()));
    }
}
