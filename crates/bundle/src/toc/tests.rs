use super::*;

type Change = fn(&mut Fields, usize);
type Fields = (Vec<u16>, ByteBuf, Vec<ByteBuf>, Vec<u32>, Vec<(ByteBuf, u64)>, Vec<u64>, u64, u64, ByteBuf);

/// A table that is right.
fn fields() -> Fields {
    let digest = || ByteBuf::from([7; 32]);
    (vec![1], digest(), vec![digest()], vec![3], vec![(digest(), 10)], vec![1, 0, 0, 0], 100, 100, ByteBuf::new())
}

/// Compressed, as a few bytes that say much.
fn decode(fields: &impl Serialize) -> Result<Toc, TocError> {
    let mut bytes = vec![1];
    bytes.extend(zstd::bulk::compress(&cbor::encode(fields), 3).unwrap());
    Toc::decode(&bytes)
}

#[test]
fn a_table_has_no_more_of_anything_than_it_may() {
    let toc = decode(&fields()).unwrap();
    assert_eq!((toc.used.len(), toc.layers.len(), toc.sections.len()), (1, 1, 1));
    let mut most = fields();
    most.5 = [1, 0, 0, 0].repeat(SECTIONS);
    assert_eq!(decode(&most).unwrap().sections.len(), SECTIONS);

    let many = 1 << 19;
    let changes: [(&str, Change); 5] = [
        ("features", |fields, many| fields.0 = vec![1; many]),
        ("bases", |fields, many| fields.2 = vec![ByteBuf::new(); many]),
        ("layers that are read", |fields, many| fields.3 = vec![0; many]),
        ("layers", |fields, many| fields.4 = vec![(ByteBuf::new(), 0); many]),
        ("sections", |fields, many| fields.5 = [1, 0, 0, 0].repeat(many)),
    ];
    for (what, change) in changes {
        let mut fields = fields();
        change(&mut fields, many);
        let error = decode(&fields).unwrap_err().to_string();
        assert!(error.contains("at most"), "{what}: {error}");
    }
}

#[test]
fn a_layer_is_a_place_or_a_pair() {
    let (features, target, bases, used, _, sections, memory, disk, chunks) = fields();
    let places = (features, target, bases, used, vec![5u32, 6], sections, memory, disk, chunks);
    assert_eq!(decode(&places).unwrap().layers[1], TargetLayer::Known(LayerPlace { base: 0, layer: 6 }));
    let (features, target, bases, used, _, sections, memory, disk, chunks) = fields();
    let long = (features, target, bases, used, vec![vec![0u8; 1 << 20]], sections, memory, disk, chunks);
    assert!(decode(&long).is_err());
    let (features, target, bases, used, _, sections, memory, disk, chunks) = fields();
    let triple = (features, target, bases, used, vec![(ByteBuf::from([7; 32]), 1u8, 2u8)], sections, memory, disk, chunks);
    assert!(decode(&triple).is_err());
}
