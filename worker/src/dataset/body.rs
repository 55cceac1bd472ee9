//! The text of an item: as it was sent, or in a block with others, compressed. What has been quiet is packed, a part at a
//! time; whoever needs the text has the block unpacked, and nothing of that is kept.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

/// Bytes that are packed together, about: enough that flags, which are much alike, become a fraction of themselves.
const BLOCK_BYTES: usize = 64 * 1024;
/// Fewer are not worth a block.
const LEAST_BLOCK_BYTES: usize = 8 * 1024;
/// A longer text stays as it is: packing it would hold others up.
const LONGEST_TEXT: usize = 1024 * 1024;
/// zstd's fastest level but for those that are meant for speed alone.
const LEVEL: i32 = 1;

/// The JSON text of an item.
#[derive(Clone)]
pub struct Body(Form);

#[derive(Clone)]
enum Form {
    Plain(Arc<[u8]>),
    Packed { block: Arc<Block>, at: u32, len: u32, digest: TextDigest },
}

/// Tells a text from every other one, so that it need not be unpacked for that.
type TextDigest = [u8; 16];

/// Texts one after the other, compressed.
struct Block {
    packed: Box<[u8]>,
    text_bytes: usize,
    /// How many texts were put into it. Fewer may still be in use.
    texts: usize,
}

/// The block that was unpacked last, for whoever reads many texts in their order.
#[derive(Default)]
pub struct Unpacked(Option<(Arc<Block>, Vec<u8>)>);

/// Whether there is anything left to pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// There may be.
    GoesOn,
    /// There is not.
    IsDone,
}

impl From<&[u8]> for Body {
    fn from(text: &[u8]) -> Self {
        Self(Form::Plain(text.into()))
    }
}

impl From<Arc<[u8]>> for Body {
    fn from(text: Arc<[u8]>) -> Self {
        Self(Form::Plain(text))
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let form = match &self.0 {
            Form::Plain(_) => "plain",
            Form::Packed { .. } => "packed",
        };
        write!(f, "Body({form}, {} bytes)", self.len())
    }
}

impl fmt::Debug for Unpacked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unpacked").finish_non_exhaustive()
    }
}

impl Body {
    /// Bytes of the text.
    pub fn len(&self) -> usize {
        match &self.0 {
            Form::Plain(text) => text.len(),
            Form::Packed { len, .. } => *len as usize,
        }
    }

    /// Whether there is no text; no item has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it is this text.
    pub fn is_text(&self, text: &[u8]) -> bool {
        match &self.0 {
            Form::Plain(own) => **own == *text,
            Form::Packed { len, digest, .. } => *len as usize == text.len() && *digest == digest_of(text),
        }
    }

    /// The text on its own.
    pub fn text(&self) -> Arc<[u8]> {
        match &self.0 {
            Form::Plain(text) => Arc::clone(text),
            Form::Packed { .. } => Unpacked::default().text(self).into(),
        }
    }

    /// The text, of a body that was never packed.
    #[cfg(test)]
    pub(super) fn plain(&self) -> &[u8] {
        match &self.0 {
            Form::Plain(text) => text,
            Form::Packed { .. } => panic!("{self:?}"),
        }
    }

    /// Whether packing it would free anything: it is plain, or most of its block is not in use any more.
    fn is_loose(&self) -> bool {
        match &self.0 {
            Form::Plain(text) => text.len() <= LONGEST_TEXT,
            Form::Packed { block, .. } => Arc::strong_count(block) * 2 < block.texts,
        }
    }
}

impl Unpacked {
    /// The text of a body. Its block stays unpacked until a body of another block is asked for.
    pub fn text<'a>(&'a mut self, body: &'a Body) -> &'a [u8] {
        match &body.0 {
            Form::Plain(text) => text,
            Form::Packed { block, at, len, .. } => {
                let (_, text) = match self.0.take() {
                    Some(last) if Arc::ptr_eq(&last.0, block) => self.0.insert(last),
                    Some(_) | None => self.0.insert((Arc::clone(block), block.unpack())),
                };
                &text[range(*at, *len)]
            }
        }
    }
}

impl Block {
    fn unpack(&self) -> Vec<u8> {
        zstd::bulk::decompress(&self.packed, self.text_bytes).expect("it was packed by this process")
    }
}

fn range(at: u32, len: u32) -> Range<usize> {
    at as usize..at as usize + len as usize
}

fn digest_of(text: &[u8]) -> TextDigest {
    *Sha256::digest(text).first_chunk().expect("a digest has 32 bytes")
}

/// Packs a block's worth of the bodies that are loose.
pub(super) fn pack_some<'a>(bodies: impl Iterator<Item = &'a mut Body>) -> Packing {
    let (mut taken, mut bytes, mut packing) = (Vec::new(), 0, Packing::IsDone);
    for body in bodies.filter(|body| body.is_loose()) {
        if bytes + body.len() > BLOCK_BYTES {
            if bytes >= LEAST_BLOCK_BYTES {
                packing = Packing::GoesOn;
                break;
            }
            // A large one has a block of its own, which small ones would keep in use.
            (taken, bytes) = (Vec::new(), 0);
        }
        bytes += body.len();
        taken.push(body);
    }
    if bytes < LEAST_BLOCK_BYTES {
        return Packing::IsDone;
    }
    let (mut text, mut unpacked) = (Vec::with_capacity(bytes), Unpacked::default());
    for body in &taken {
        text.extend_from_slice(unpacked.text(body));
    }
    let Ok(packed) = zstd::bulk::compress(&text, LEVEL) else { return Packing::IsDone };
    let block = Arc::new(Block { packed: packed.into(), text_bytes: text.len(), texts: taken.len() });
    let mut at = 0;
    for body in taken {
        let len = u32::try_from(body.len()).expect("longer ones are not packed");
        let digest = digest_of(&text[range(at, len)]);
        body.0 = Form::Packed { block: Arc::clone(&block), at, len, digest };
        at += len;
    }
    packing
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn text(number: usize) -> Vec<u8> {
        format!(r#"{{"key":"flag-{number}","version":{number},"rules":[{}]}}"#, "{\"variation\":1},".repeat(100))
            .into_bytes()
    }

    fn packed(count: usize) -> Vec<Body> {
        let mut bodies: Vec<Body> = (0..count).map(|number| text(number).as_slice().into()).collect();
        while pack_some(bodies.iter_mut()) == Packing::GoesOn {}
        bodies
    }

    fn bytes_of_blocks(bodies: &[Body]) -> usize {
        let mut blocks = BTreeMap::new();
        for body in bodies {
            if let Form::Packed { block, .. } = &body.0 {
                blocks.insert(Arc::as_ptr(block).addr(), block.packed.len());
            }
        }
        blocks.values().sum()
    }

    #[test]
    fn what_is_packed_is_the_same_text_in_less_room() {
        let bodies = packed(200);
        let mut unpacked = Unpacked::default();
        for (number, body) in bodies.iter().enumerate() {
            assert!(body.is_text(&text(number)) && !body.is_text(&text(number + 1)), "{number}");
            assert!(unpacked.text(body) == text(number) && *body.text() == *text(number), "{number}");
        }
        let plain: usize = bodies.iter().map(Body::len).sum();
        assert!(bytes_of_blocks(&bodies) * 5 < plain, "{} of {plain}", bytes_of_blocks(&bodies));
    }

    #[test]
    fn small_and_large_texts_do_not_stand_in_each_others_way() {
        let shown = |sizes: &[usize]| {
            let mut bodies: Vec<Body> = sizes.iter().map(|size| vec![b'x'; *size].as_slice().into()).collect();
            while pack_some(bodies.iter_mut()) == Packing::GoesOn {}
            let letter = |body: &Body| if matches!(body.0, Form::Plain(_)) { '-' } else { 'p' };
            bodies.iter().map(letter).collect::<String>()
        };
        let (small, large) = (1_000, 3 * BLOCK_BYTES);
        assert_eq!(shown(&[small, small]), "--", "too little to be worth it");
        assert_eq!(shown(&[small, large, small, large, small]), "-p-p-");
        assert_eq!(shown(&[large, small, large]), "p-p");
        assert_eq!(shown(&[small; 100]), "p".repeat(100));
        assert_eq!(shown(&[LONGEST_TEXT + 1, large]), "-p", "that would take too long");
    }

    #[test]
    fn a_block_of_which_little_is_in_use_is_packed_anew() {
        for in_use in [1, 18, 30] {
            let mut bodies = packed(100);
            let is_first = |body: &Body, first: &Body| match (&body.0, &first.0) {
                (Form::Packed { block: one, .. }, Form::Packed { block: other, .. }) => Arc::ptr_eq(one, other),
                _ => false,
            };
            let first = bodies[0].clone();
            let texts = bodies.iter().filter(|body| is_first(body, &first)).count();
            for (number, body) in bodies.iter_mut().enumerate().take(texts).skip(in_use) {
                *body = text(number + 1000).as_slice().into();
            }
            drop(first);
            while pack_some(bodies.iter_mut()) == Packing::GoesOn {}
            let of_first = bodies.iter().filter(|body| is_first(body, &bodies[0])).count();
            let is_anew = of_first > in_use;
            assert_eq!(is_anew, in_use * 2 < texts, "{in_use} of {texts}: {of_first}");
            assert!(bodies[0].is_text(&text(0)) && bodies[in_use].is_text(&text(in_use + 1000)));
        }
    }
}
