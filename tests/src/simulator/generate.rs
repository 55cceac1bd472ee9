//! Made-up data: realistic flags of a wanted size, and items whose text only survives a writer that copies
//! bytes. The same seed gives the same data.

use std::fmt::Write as _;

use super::dataset::{Dataset, Item, Kind};

/// `count` flags of `bytes_each` bytes (or a little under 1 KB, if that is more), each with every field that
/// the strictest SDKs ask for, and a few segments that some of their rules refer to.
pub fn generated_flags(count: usize, bytes_each: usize, seed: u64) -> Dataset {
    let mut dataset = Dataset::default();
    for index in 0..count {
        dataset.insert(Kind::Flag, generated_flag(index, 1, bytes_each, seed));
    }
    for index in 0..count.div_ceil(20) {
        let key = format!("segment-{index:05}");
        let json = format!(
            concat!(
                r#"{{"key":"{}","included":["user-{}"],"excluded":[],"includedContexts":[],"excludedContexts":[],"#,
                r#""salt":"{:016x}","rules":[],"unbounded":false,"version":1,"deleted":false,"generation":1}}"#
            ),
            key,
            index,
            Random::new(seed, index, 1).next()
        );
        dataset.insert(Kind::Segment, Item::raw(&key, 1, &json));
    }
    dataset
}

/// The flag number `index` of [`generated_flags`], in any version: what a patch for it would carry.
pub fn generated_flag(index: usize, version: u64, bytes: usize, seed: u64) -> Item {
    let key = format!("flag-{index:05}");
    let mut random = Random::new(seed, index, version);
    let (salt, rule) = (random.next(), random.next());
    let on = version % 2 == 1;
    let head = format!(
        concat!(r#"{{"key":"{key}","on":{on},"prerequisites":[],"targets":[{{"values":["#, r#""user-{index}""#),
        key = key,
        on = on,
        index = index
    );
    let tail = format!(
        concat!(
            r#"],"variation":0,"contextKind":"user"}}],"contextTargets":[],"rules":[{{"variation":0,"#,
            r#""id":"{rule:016x}","clauses":[{{"contextKind":"user","attribute":"country","op":"in","#,
            r#""values":["de","fr","nz"],"negate":false}}],"trackEvents":false}},{{"variation":1,"#,
            r#""id":"{rule:015x}s","clauses":[{{"contextKind":"user","attribute":"segmentMatch","#,
            r#""op":"segmentMatch","values":["segment-{segment:05}"],"negate":false}}],"trackEvents":false}}],"#,
            r#""fallthrough":{{"rollout":{{"contextKind":"user","variations":[{{"variation":0,"weight":60000}},"#,
            r#"{{"variation":1,"weight":40000}}],"bucketBy":"key"}}}},"offVariation":1,"variations":[true,false],"#,
            r#""clientSideAvailability":{{"usingMobileKey":false,"usingEnvironmentId":false}},"clientSide":false,"#,
            r#""salt":"{salt:032x}","trackEvents":false,"trackEventsFallthrough":false,"#,
            r#""debugEventsUntilDate":null,"version":{version},"deleted":false}}"#
        ),
        rule = rule,
        segment = index / 20,
        salt = salt,
        version = version
    );
    let mut json = head;
    pad_with_targets(&mut json, bytes.saturating_sub(tail.len()), &mut random);
    json.push_str(&tail);
    Item::raw(&key, version, &json)
}

/// Appends made-up user keys until `json` has `length` bytes, to the byte where there is room for one.
fn pad_with_targets(json: &mut String, length: usize, random: &mut Random) {
    const SHORTEST: usize = r#","""#.len() + 1;
    const USUAL: usize = r#","user-0123456789abcdef""#.len();
    loop {
        let room = length.saturating_sub(json.len());
        if room < SHORTEST {
            return;
        }
        let entry = if room >= USUAL + SHORTEST { USUAL } else { room };
        let mut name = format!("user-{:016x}", random.next());
        while name.len() + 3 < entry {
            name.push('0');
        }
        name.truncate(entry - 3);
        let _ = write!(json, r#","{name}""#);
    }
}

/// Valid items that only a byte-for-byte copy keeps: unknown fields, numbers beyond 2^53 and in odd forms,
/// escapes, white space and line breaks, nested unknowns, fields in unusual order.
pub fn torture(count: usize, seed: u64) -> Dataset {
    const ODDITIES: [&str; 14] = [
        r#""bigInteger":9007199254740993"#,
        r#""huge":123456789012345678901234567890"#,
        r#""negativeBig":-9223372036854775809"#,
        r#""float":1.0"#,
        r#""exponent":1e3,"exponents":[1E+2,1.5e-7,-0,-0.0,0.1000]"#,
        r#""escaped":"caf\u00e9 \/ \u003c\u003e\u0026 \ud83d\ude00 \u2028 \b\f\n\r\t\"\\""#,
        r#""plain":"café 😀 / <>& 日本語""#,
        r#""empty":{},"emptyList":[ ],"emptyText":"""#,
        r#""nested":{"unknown":[{"deeper":{"deepest":[[[1.10,null,true]]]}}]}"#,
        "\"spaced\" : {  \"a\"\t:\t[ 1 ,  2 ] }",
        "\"lines\":{\n  \"a\": 1,\n\n  \"b\": [\n 2 ]\n}",
        r#""twice":1,"twice":2"#,
        r#""\u006bey2":"escaped name","":"no name""#,
        r#""version2":7,"deleted2":true,"path":"/flags/other""#,
    ];
    let mut dataset = Dataset::default();
    for index in 0..count {
        let mut random = Random::new(seed, index, 0);
        let kind = if index % 5 == 4 { Kind::Segment } else { Kind::Flag };
        let key = format!("odd.{index:05}_{:04X}-k", random.next() & 0xffff);
        let version = 1 + random.below(1_000_000);
        let mut fields: Vec<String> = required_fields(kind);
        fields.push(format!(r#""key":"{key}""#));
        fields.push(format!(r#""version":{version}"#));
        for _ in 0..=random.below(4) {
            let oddity = ODDITIES[random.index(ODDITIES.len())].to_owned();
            if !fields.contains(&oddity) {
                fields.push(oddity);
            }
        }
        for position in (1..fields.len()).rev() {
            fields.swap(position, random.index(position + 1));
        }
        let (opening, comma, closing) =
            [("{", ",", "}"), ("{ ", ", ", " }"), ("{\n", ",\n\t", "\n}")][random.index(3)];
        let json = format!("{opening}{}{closing}", fields.join(comma));
        dataset.insert(kind, Item::raw(&key, version, &json));
    }
    dataset
}

fn required_fields(kind: Kind) -> Vec<String> {
    let fields: &[&str] = match kind {
        Kind::Flag => &[
            r#""on":true"#,
            r#""prerequisites":[],"targets":[],"rules":[]"#,
            r#""fallthrough":{"variation":0}"#,
            r#""offVariation":1"#,
            r#""variations":["a",{"b":1.0}]"#,
            r#""salt":"\u0073alt""#,
            r#""trackEvents":false,"trackEventsFallthrough":false"#,
            r#""deleted":false"#,
        ],
        Kind::Segment => &[
            r#""included":["caf\u00e9"],"excluded":[]"#,
            r#""includedContexts":[],"excludedContexts":[]"#,
            r#""rules":[]"#,
            r#""salt":"salt""#,
            r#""deleted":false"#,
        ],
    };
    fields.iter().map(|&field| field.to_owned()).collect()
}

/// SplitMix64: enough for made-up data, and the same on every machine.
struct Random(u64);

impl Random {
    fn new(seed: u64, index: usize, version: u64) -> Self {
        let index = u64::try_from(index).expect("an index fits 64 bits");
        let mut random = Self(seed ^ index.wrapping_mul(0xA24B_AED4_963E_E407) ^ version.rotate_left(32));
        random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn index(&mut self, length: usize) -> usize {
        let length = u64::try_from(length).expect("a length fits 64 bits");
        usize::try_from(self.below(length)).expect("it is below a usize")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_flags_have_the_wanted_size_and_parse() {
        let dataset = generated_flags(40, 2048, 7);
        assert_eq!((dataset.len(Kind::Flag), dataset.len(Kind::Segment)), (40, 2));
        for item in dataset.items(Kind::Flag) {
            assert_eq!(item.json().len(), 2048);
            assert_eq!(&Item::parse(item.json()).unwrap(), item);
        }
        assert_eq!(dataset, generated_flags(40, 2048, 7));
        assert_ne!(dataset, generated_flags(40, 2048, 8));
    }

    #[test]
    fn torture_items_are_valid_and_odd() {
        let dataset = torture(1000, 1);
        assert_eq!(dataset.len(Kind::Flag) + dataset.len(Kind::Segment), 1000);
        let mut rewritten = 0;
        for item in dataset.items(Kind::Flag).chain(dataset.items(Kind::Segment)) {
            assert_eq!(&Item::parse(item.json()).unwrap(), item);
            let tree: serde_json::Value = serde_json::from_str(item.json()).unwrap();
            rewritten += usize::from(serde_json::to_string(&tree).unwrap() != item.json());
        }
        assert_eq!(rewritten, 1000, "a writer that parses and prints changes every one of them");
    }
}
