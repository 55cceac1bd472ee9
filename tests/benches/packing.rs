//! What the texts of flags become, and what that costs, by compressor and by how much is packed together. The worker packs
//! with zstd's level 1 in blocks of 64 KiB (`worker/src/dataset/body.rs`).

#![expect(clippy::print_stdout, reason = "the sizes are of interest beside the times")]
#![expect(clippy::cast_precision_loss, reason = "the figures are small")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use flotilla_tests::simulator::{Kind, generated_flags};

/// Flags as in the comparison with the relay: 200 of 2 KB, half of each made of keys that nothing compresses well.
const FLAGS: (usize, usize) = (200, 2048);
/// Bytes that are packed together.
const BLOCKS: [usize; 3] = [16 * 1024, 64 * 1024, 256 * 1024];

/// A way to pack.
struct Compressor {
    name: &'static str,
    pack: fn(&[u8]) -> Vec<u8>,
    unpack: fn(&[u8], usize) -> Vec<u8>,
}

const COMPRESSORS: [Compressor; 3] = [
    Compressor { name: "lz4", pack: lz4_flex::block::compress, unpack: unpack_lz4 },
    Compressor { name: "zstd-1", pack: |text| pack_zstd(text, 1), unpack: unpack_zstd },
    Compressor { name: "zstd-3", pack: |text| pack_zstd(text, 3), unpack: unpack_zstd },
];

fn unpack_lz4(packed: &[u8], text_bytes: usize) -> Vec<u8> {
    lz4_flex::block::decompress(packed, text_bytes).expect("it was packed here")
}

fn pack_zstd(text: &[u8], level: i32) -> Vec<u8> {
    zstd::bulk::compress(text, level).expect("memory suffices")
}

fn unpack_zstd(packed: &[u8], text_bytes: usize) -> Vec<u8> {
    zstd::bulk::decompress(packed, text_bytes).expect("it was packed here")
}

fn packing(criterion: &mut Criterion) {
    let data = generated_flags(FLAGS.0, FLAGS.1, 1);
    let text: Vec<u8> = data.items(Kind::Flag).flat_map(|item| item.json().bytes()).collect();
    for block_bytes in BLOCKS {
        let mut group = criterion.benchmark_group(format!("{}KiB", block_bytes / 1024));
        let block = &text[..block_bytes];
        group.throughput(Throughput::Bytes(block_bytes as u64));
        for Compressor { name, pack, unpack } in COMPRESSORS {
            let packed: usize = text.chunks(block_bytes).map(|block| pack(block).len()).sum();
            println!("{name}: {:.3} of the text", packed as f64 / text.len() as f64);
            group.bench_function(format!("pack/{name}"), |bencher| bencher.iter(|| pack(black_box(block))));
            let packed = pack(block);
            group.bench_function(format!("unpack/{name}"), |bencher| {
                bencher.iter(|| unpack(black_box(&packed), block_bytes));
            });
        }
    }
}

criterion_group!(benches, packing);
criterion_main!(benches);
