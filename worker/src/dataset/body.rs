//! The text of an item: as it was sent, or in a block with others, compressed. What has been quiet is packed, a part at a
//! time; whoever needs the text has the block unpacked, and nothing of that is kept.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Bytes that are packed together, about: enough that flags, which are much alike, become a fraction of themselves.
const BLOCK_BYTES: usize = 64 * 1024;
/// Fewer are not worth a block.
const LEAST_BLOCK_BYTES: usize = 8 * 1024;
/// Of the levels of zstd the fastest that is not meant for speed alone.
const LEVEL: i32 = 1;

/// The JSON text of an item.
#[derive(Clone)]
pub struct Body(Form);

#[derive(Clone)]
enum Form {
    Plain(Arc<[u8]>),
    Packed { block: Arc<Block>, at: u32, len: u32 },
}

/// Texts one after the other, compressed.
struct Block {
    packed: Box<[u8]>,
    bytes: usize,
    /// How many texts were put into it. Fewer may still be in use.
    texts: usize,
}

/// Blocks that were unpacked to look at texts in them.
#[derive(Default)]
pub struct Unpacked {
    /// By the address of the block, which cannot be another's while it is held.
    blocks: BTreeMap<usize, (Arc<Block>, Vec<u8>)>,
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
        f.debug_struct("Unpacked").field("blocks", &self.blocks.len()).finish()
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
    pub fn is(&self, text: &[u8], unpacked: &mut Unpacked) -> bool {
        self.len() == text.len() && unpacked.text(self) == text
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
            Form::Plain(_) => true,
            Form::Packed { block, .. } => Arc::strong_count(block) * 2 < block.texts,
        }
    }
}

impl Block {
    fn unpack(&self) -> Vec<u8> {
        zstd::bulk::decompress(&self.packed, self.bytes).expect("it was packed by this process")
    }
}

impl Unpacked {
    /// The text of a body. Its block stays unpacked as long as this lives.
    pub fn text<'a>(&'a mut self, body: &'a Body) -> &'a [u8] {
        match &body.0 {
            Form::Plain(text) => text,
            Form::Packed { block, at, len } => {
                let address = Arc::as_ptr(block).addr();
                let (_, text) = self.blocks.entry(address).or_insert_with(|| (Arc::clone(block), block.unpack()));
                &text[range(*at, *len)]
            }
        }
    }
}

fn range(at: u32, len: u32) -> Range<usize> {
    at as usize..at as usize + len as usize
}

/// Packs a block's worth of those that are loose and may be packed. Says whether there may be more.
pub(super) fn pack_some<'a>(bodies: impl Iterator<Item = &'a mut Body>) -> bool {
    let mut taken = Vec::new();
    let (mut text, mut unpacked) = (Vec::new(), Unpacked::default());
    let mut is_more = false;
    for body in bodies.filter(|body| body.is_loose()) {
        if !taken.is_empty() && text.len() + body.len() > BLOCK_BYTES {
            is_more = true;
            break;
        }
        let at = text.len();
        text.extend_from_slice(unpacked.text(body));
        taken.push((body, at));
    }
    if text.len() < LEAST_BLOCK_BYTES || u32::try_from(text.len()).is_err() {
        return false;
    }
    let Ok(packed) = zstd::bulk::compress(&text, LEVEL) else { return false };
    let block = Arc::new(Block { packed: packed.into(), bytes: text.len(), texts: taken.len() });
    for (body, at) in taken {
        let [at, len] = [at, body.len()].map(|bytes| u32::try_from(bytes).expect("the whole text is shorter"));
        body.0 = Form::Packed { block: Arc::clone(&block), at, len };
    }
    is_more
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(number: usize) -> Vec<u8> {
        format!(r#"{{"key":"flag-{number}","version":{number},"rules":[{}]}}"#, "{\"variation\":1},".repeat(100))
            .into_bytes()
    }

    fn packed(count: usize) -> Vec<Body> {
        let mut bodies: Vec<Body> = (0..count).map(|number| text(number).as_slice().into()).collect();
        while pack_some(bodies.iter_mut()) {}
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
            assert!(body.is(&text(number), &mut unpacked) && *body.text() == *text(number), "{number}");
            assert!(!body.is(&text(number + 1), &mut unpacked));
        }
        let plain: usize = bodies.iter().map(Body::len).sum();
        assert!(unpacked.blocks.len() > 3 && bytes_of_blocks(&bodies) * 5 < plain, "{unpacked:?}");
    }

    #[test]
    fn little_is_left_as_it_is_and_a_large_one_has_a_block_of_its_own() {
        assert_eq!(format!("{:?}", packed(2)[1]), format!("Body(plain, {} bytes)", text(1).len()));
        let mut bodies = [vec![b'x'; 3 * BLOCK_BYTES].as_slice().into(), text(1).as_slice().into()];
        assert!(pack_some(bodies.iter_mut()), "there is another one");
        assert!(!pack_some(bodies.iter_mut()));
        assert_eq!(
            format!("{bodies:?}"),
            format!("[Body(packed, 196608 bytes), Body(plain, {} bytes)]", text(1).len())
        );
    }

    #[test]
    fn a_block_of_which_little_is_in_use_is_packed_anew() {
        let mut bodies = packed(100);
        for number in (0..100).filter(|number| number % 10 != 0) {
            bodies[number] = text(number + 1000).as_slice().into();
        }
        let before = bytes_of_blocks(&bodies);
        while pack_some(bodies.iter_mut()) {}
        assert!(bytes_of_blocks(&bodies) < before * 3 / 2, "the old ones are gone");
        assert!(bodies.iter().all(|body| matches!(body.0, Form::Packed { .. })));
        assert!(bodies[20].is(&text(20), &mut Unpacked::default()));
    }
}
