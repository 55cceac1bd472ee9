//! The codec of all RPCs: prost's, but that a message of very many parts is refused before it is decoded.
//!
//! A part that says nothing takes two bytes on the wire and hundreds once it is decoded, so that a limit in bytes alone
//! lets a request of some MiB take some GB of memory.

use prost::Message;
use prost::bytes::Buf as _;
use prost::encoding::{DecodeContext, decode_key, skip_field};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

use crate::{Reason, Refusal};

/// The most fields that a message may have at its top, each element of a list counted: ten times what the API allows. What is
/// below is not counted: it is that of workers, whom control trusts with more, and of lists of names.
const MOST_PARTS: usize = 100_000;

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
        if has_more_parts_than(MOST_PARTS, buffer.chunk()) {
            let message = format!("the message has more than {MOST_PARTS} parts; split it into several");
            return Err(Refusal::new(Reason::TooManyParts, message).into());
        }
        self.0.decode(buffer)
    }
}

/// Whether it has more; what is malformed before that is left for the decoder to tell.
fn has_more_parts_than(most: usize, mut message: &[u8]) -> bool {
    for _ in 0..=most {
        let Ok((tag, wire_type)) = decode_key(&mut message) else { return false };
        if skip_field(wire_type, tag, &mut message, DecodeContext::default()).is_err() {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::{BatchApplyEnvironmentsRequest, EnvironmentEntry};

    #[test]
    fn parts_are_counted_before_they_are_decoded() {
        let message = |count| {
            let entries = vec![EnvironmentEntry::default(); count];
            BatchApplyEnvironmentsRequest { entries, ..Default::default() }.encode_to_vec()
        };
        assert!(!has_more_parts_than(3, &[]));
        assert!(!has_more_parts_than(3, &message(3)));
        assert!(has_more_parts_than(3, &message(4)));
        let malformed = [message(3), vec![0x0a, 0xff]].concat();
        assert!(!has_more_parts_than(3, &malformed), "the decoder says what is wrong");
    }
}
