//! The plan: rules, budget, totals.

use types::units::BitsPerSecond;
use vault::{Class, ModelFile, Plan, Rule, Rules};

use crate::support::{World, odd_model};

fn classes(plan: &Plan) -> Vec<(&str, Class, Class)> {
    plan.pieces().iter().map(|planned| (planned.piece.name.as_str(), planned.class, planned.wanted)).collect()
}

#[test]
fn own_keys_go_to_the_first_rules_while_the_budget_lasts() {
    use Class::{Derived, OwnKey};
    let world = World::new();
    let file = ModelFile::open(&world.write("m", &odd_model(1))).unwrap();
    let plan = Plan::new(&file, &Rules::default(), 2).unwrap();
    assert_eq!(
        classes(&plan),
        [
            ("#header", Derived, Derived),
            ("model.embed_tokens.weight", Derived, OwnKey),
            ("empty", Derived, Derived),
            ("model.layers.0.position_ids", Derived, Derived),
            ("scalar", Derived, Derived),
            ("big", Derived, Derived),
            ("lm_head.weight", OwnKey, OwnKey),
        ]
    );
    let totals = plan.totals();
    assert_eq!((totals.tensors, totals.chunks, totals.packs), (6, 9, 2));
    assert_eq!((totals.keys_per_site, totals.key_bits_per_site, totals.short_of_budget), (2, 512, 1));
    assert_eq!((totals.own_key_tensors, totals.own_key_bytes), (1, 102));
    assert_eq!(totals.sealed_bytes, totals.file_bytes + 16 * totals.chunks);
    assert_eq!(plan.time_to_gather(BitsPerSecond(2000.0)).unwrap().as_millis(), 256);
    assert_eq!(plan.time_to_gather(BitsPerSecond(0.0)), None);

    assert_eq!(Plan::new(&file, &Rules::default(), 100).unwrap().keys_per_site(), 3);
    assert_eq!(Plan::new(&file, &Rules::default(), 1).unwrap().keys_per_site(), 1);
    assert!(Plan::new(&file, &Rules::default(), 0).is_err());
}

#[test]
fn rules_are_read_in_order() {
    let world = World::new();
    let file = ModelFile::open(&world.write("m", &odd_model(1))).unwrap();
    let rules = |texts: &[&str]| Rules(texts.iter().map(|text| text.parse::<Rule>().unwrap()).collect());
    let own = |rules: &Rules| {
        let plan = Plan::new(&file, rules, 100).unwrap();
        let own = plan.pieces().iter().filter(|planned| planned.class == Class::OwnKey);
        own.map(|planned| planned.piece.name.clone()).collect::<Vec<_>>()
    };
    // No rule reaches the header, and a tensor without bytes takes no key.
    assert_eq!(own(&rules(&["*=own-key"])).len(), 5);
    assert_eq!(own(&rules(&["model.*=derived", "*=own-key"])), ["scalar", "big", "lm_head.weight"]);
    assert_eq!(own(&rules(&[])).len(), 0);
    for wrong in ["x", "x=otp", "=own-key", ""] {
        assert!(wrong.parse::<Rule>().is_err(), "{wrong}");
    }
}
